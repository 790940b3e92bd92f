"""Random keys that depend on nothing but what they are of: the smallest ones are a uniform sample in any order of reading.

    mix(x) = the finaliser of splitmix64
    key(seed, i, p) = mix(mix(mix(seed + 0x9e3779b97f4a7c15) ^ i) + p)          unsigned 64 bits

The keys of a part are those of the whole, so the samples of parts merge into the sample of the whole, bit for bit.
"""
import numpy as np
from jaxtyping import UInt64

GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def mix(x: UInt64[np.ndarray, "*shape"]) -> UInt64[np.ndarray, "*shape"]:
    """Every bit of the result depends on every bit of x."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def of_latents(seed: int, latents: np.ndarray) -> UInt64[np.ndarray, "*shape"]:
    """The part of the keys that no position changes: key(seed, i, p) = mix(of_latents(seed, i) + p)."""
    first = mix(np.atleast_1d(np.uint64(seed)) + GOLDEN)
    return mix(first ^ np.asarray(latents).astype(np.uint64))


def keys(seed: int, latents: np.ndarray, positions: np.ndarray) -> UInt64[np.ndarray, "*shape"]:
    """The keys of pairs (latent, position), which are broadcast against each other."""
    return mix(of_latents(seed, latents) + np.asarray(positions).astype(np.uint64))


def sampling_order(seed: int, sae: int, count: int) -> np.ndarray:
    """The latents 0 to count - 1 of an SAE by ascending key(seed, sae, latent): every prefix is a uniform sample."""
    return np.argsort(keys(seed, np.array([sae]), np.arange(count)), kind="stable")
