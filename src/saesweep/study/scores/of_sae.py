"""The scores of one SAE or control: a row per sampled latent, and those of the whole SAE."""
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int64

from saesweep.lm.tokenizer import Tokenizer
from saesweep.study.comparison import measures
from saesweep.study.comparison.replicates import Replicates, of_sums
from saesweep.study.hits import Collected
from saesweep.study.sampling import Sample
from saesweep.study.scores import coverage, probes
from saesweep.study.scores.coverage import Detectors
from saesweep.study.scores.ground import Ground
from saesweep.study.scores.of_latent import MEASURES, LatentScores, score
from saesweep.study.scores.probes import Probed

Grounds = tuple[Ground, Ground]  # fit, test
Row = dict[str, Any]


class Summed(NamedTuple):
    """A score of the whole SAE that is a function of sums over tokens (comparison/measures.py): the mean over its rows."""

    measure: Callable[..., np.ndarray]
    sums: Mapping[str, Float[np.ndarray, "labels documents"]]  # over the tokens on which all latents are kept


class Extra:
    """Scores that need more than the activations: decoder rows, embeddings, the rows themselves. None by default."""

    of_some: frozenset[str] = frozenset()  # scores that are measured of some latents only: nothing is amiss without one

    def of_latents(self, sae: Collected, latents: Int64[np.ndarray, " n"]) -> Mapping[str, Float[np.ndarray, " n"]]:
        """By name a score of each latent, NaN where it has none."""
        return {}

    def of_sae(self, sae: Collected, grounds: Grounds, probed: Probed | None) -> Mapping[str, float | Summed]:
        """By name the scores of the whole SAE. probed: None without labels."""
        return {}


class Detected(NamedTuple):
    chosen: Detectors
    sums: dict[str, Float[np.ndarray, "labels documents"]]


def latent_rows(
    sae: Collected, grounds: Grounds, drawn: Sample, tokenizer: Tokenizer, counts: Int64[np.ndarray, "rows documents"],
    replicates: Replicates, extras: Sequence[Extra],
) -> list[Row]:
    """counts: of the draws of documents, under which the means go to `replicates`."""
    fit, test = grounds
    found = [score(fit, test, int(latent), tokenizer) for latent in drawn.latents]
    values = _measured(sae, test, found, drawn, counts, replicates) if found else {}
    for extra in extras:
        values |= extra.of_latents(sae, drawn.latents)
    of_some = frozenset[str]().union(*(extra.of_some for extra in extras))
    rows = []
    for i, latent in enumerate(drawn.latents.tolist()):
        own = {name: float(column[i]) for name, column in values.items()} | found[i].numbers
        missing = [name for name, value in own.items() if np.isnan(value) and name not in of_some]
        rows.append({
            "latent": latent, "stratum": int(drawn.stratum[i]), "weight": float(drawn.weight[i]),
            "frequency": float(sae.test.frequency[latent]), "fires": int(sae.test.fires[latent]),
            "documents": int(sae.test.documents[latent]), **own, **found[i].words,
            "reason": f"no {', '.join(missing)}" if missing else None,
        })
    return rows


def _measured(
    sae: Collected, test: Ground, found: Sequence[LatentScores], drawn: Sample, counts: Int64[np.ndarray, "rows documents"],
    replicates: Replicates,
) -> dict[str, np.ndarray]:
    """The MEASURES of each latent; their means under each draw of documents go to `replicates`."""
    fires = np.stack([one.sums["firing"]["tp"] + one.sums["firing"]["fn"] for one in found])
    values = {}
    for name, (key, measure) in MEASURES.items():
        if key not in found[0].sums:
            continue
        sums = {part: np.stack([one.sums[key][part] for one in found]) for part in found[0].sums[key]}
        values[name] = measure(**{part: one.sum(1) for part, one in sums.items()})
        means = of_sums(measure, sums, counts, drawn.weight, fires)
        replicates.add(sae.path, sae.control, name, means, test.tokens)
    return values


def whole_sae(
    sae: Collected, grounds: Grounds, counts: Int64[np.ndarray, "rows documents"], replicates: Replicates,
    extras: Sequence[Extra],
) -> tuple[dict[str, float], Detected | None]:
    """The scores of the whole SAE by name, and the latents that find the labels.

    Their values under each draw of documents go to `replicates`. Not those of `splits`, which are counted on fit: they would
    need the probes of each draw.
    """
    found, detected, probed = dict[str, float | Summed](), None, None
    if grounds[0].of.labels:
        detected = Detected(chosen := coverage.choose(grounds[0]), coverage.measure(chosen, *grounds))
        probed = probes.probe(*grounds)
        found["coverage"] = Summed(measures.f1, detected.sums)
        found["coverage_precise"] = Summed(coverage.precise, detected.sums)
        found |= {f"probe_{k}": Summed(measures.f1, sums) for k, sums in probed.sums.items()}
        found["splits"] = float(np.mean([len(latents) for latents in probed.split]))
    for extra in extras:
        found |= extra.of_sae(sae, grounds, probed)
    return {name: _number(sae, name, one, grounds[1], counts, replicates) for name, one in found.items()}, detected


def _number(
    sae: Collected, name: str, found: float | Summed, test: Ground, counts: Int64[np.ndarray, "rows documents"],
    replicates: Replicates,
) -> float:
    if not isinstance(found, Summed):
        return found
    means = of_sums(found.measure, found.sums, counts)
    replicates.add(sae.path, sae.control, name, means, test.dense_tokens)
    return float(means.uniform[0])


def label_rows(grounds: Grounds, detected: Detected | None) -> list[Row]:
    """Of each label the latent that finds it, and how well on test."""
    if detected is None:
        return []
    tp, fp, fn = (detected.sums[key].sum(1) for key in ("tp", "fp", "fn"))
    chosen = detected.chosen
    columns = {
        "label": list(grounds[0].of.names), "latent": chosen.latent, "threshold": chosen.level / coverage.LEVELS,
        "precision": measures.ratio(tp, tp + fp), "recall": measures.ratio(tp, tp + fn), "f1": measures.f1(tp, fp, fn),
        "f1_fit": chosen.f1, "tokens": tp + fn,
    }
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
