"""Logistic regression with an L2 penalty, by Newton's method or L-BFGS, and the threshold of largest F1.

    minimise  sum_i w_i log(1 + exp(-s_i z_i)) + |v|^2 / 2,    z = x v + b,  s = +1 or -1,  columns of x at unit variance
"""
from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from scipy import optimize
from scipy.special import expit

STEPS, ENOUGH = 25, 1e-6


class Probe(NamedTuple):
    weights: Float[np.ndarray, " k"]
    threshold: float  # positive where x @ weights is at least this


def newton(
    x: Float[np.ndarray, "n k"], y: Bool[np.ndarray, " n"], weight: Float[np.ndarray, " n"]
) -> Float[np.ndarray, " k"]:
    """For few columns. weight: how many equal rows each stands for."""
    scale = np.sqrt(np.average(x**2, axis=0, weights=weight)) + 1e-12
    wide = np.column_stack([x / scale, np.ones(len(x))])
    penalty = np.append(np.ones(x.shape[1]), 1e-6)
    v = np.zeros(x.shape[1] + 1)
    for _ in range(STEPS):
        p = expit(wide @ v)
        gradient = wide.T @ (weight * (p - y)) + penalty * v
        curvature = (wide.T * (weight * np.maximum(p * (1 - p), 1e-9))) @ wide + np.diag(penalty)
        step = np.linalg.solve(curvature, gradient)
        v -= step / max(1.0, float(np.abs(step).max()) / 4)  # far from the minimum a whole step may overshoot
        if np.abs(step).max() < ENOUGH:
            break
    return v[:-1] / scale


def lbfgs(
    x: Float[np.ndarray, "n d_in"], y: Bool[np.ndarray, "n labels"], steps: int = 100
) -> Float[np.ndarray, "d_in labels"]:
    """For many columns: all labels at once. The last bits depend on the number of threads."""
    mean, scale = x.mean(0), x.std(0) + 1e-12
    x = ((x - mean) / scale).astype(np.float32)
    shape = (x.shape[1] + 1, y.shape[1])

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        v = flat.reshape(shape)
        z = (x @ v[:-1].astype(np.float32)).astype(np.float64) + v[-1]
        error = expit(z) - y
        gradient = np.concatenate([(x.T @ error.astype(np.float32)).astype(np.float64) + v[:-1], error.sum(0)[None]])
        value = float((np.logaddexp(0, z) - z * y).sum() + np.square(v[:-1]).sum() / 2)
        return value / len(x), gradient.ravel() / len(x)

    start = np.zeros(shape)
    share = y.mean(0).clip(1e-6, 1 - 1e-6)
    start[-1] = np.log(share / (1 - share))
    found: Any = optimize.minimize(loss, start.ravel(), jac=True, method="L-BFGS-B", options={"maxiter": steps})
    return found.x.reshape(shape)[:-1] / scale[:, None]


def best_threshold(
    z: Float[np.ndarray, " n"], y: Bool[np.ndarray, " n"], weight: Float[np.ndarray, " n"]
) -> tuple[float, float]:
    """The threshold on z of largest F1, and the F1. It lies halfway between two values of z."""
    order = np.argsort(-z, kind="stable")
    tp, found = np.cumsum((weight * y)[order]), np.cumsum(weight[order])
    f1 = 2 * tp / (found + (weight * y).sum())
    last = np.append(z[order][1:] < z[order][:-1], True)  # of equal values all or none are taken
    at = int(np.where(last, f1, -1.0).argmax())
    below = z[order][min(at + 1, len(z) - 1)]
    return float(z[order][at] + below) / 2, float(f1[at])
