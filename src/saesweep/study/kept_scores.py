"""The scores of one SAE or control in a file beside its activations: made once, and reused while nothing has changed.

    <folder>/study/scores.json      rows of the tables, means under drawn documents, what the extras found, and what they were
                                    made from: SHA-256 of the activations and of the code, and the settings that matter

Extras read text or load the language model, so what they found is reused where other settings have changed, such as draws.
"""
from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int64

from saesweep.runtime import atomic
from saesweep.runtime.digests import sha256
from saesweep.study.comparison import measures
from saesweep.study.comparison.replicates import Replicates
from saesweep.study.hits import Collected
from saesweep.study.scores.of_sae import Extra, Grounds, Summed
from saesweep.study.scores.probes import Probed
from saesweep.study.table import Rows, about_sae

FILE = "scores.json"
OF_EXTRAS = (  # what extras find depends on these
    "labels", "label_tokens", "label_documents", "logits", "dense_probes", "embedding", "embedding_latents", "embedder")
OF_SCORES = (*OF_EXTRAS, "features", "min_fires", "min_documents", "draws", "seed")
CODE = ("*.py", "scores/*.py", "comparison/measures.py", "comparison/replicates.py")  # what determines a score
TABLES = ("scores", "saes", "labels", "shares")


@cache
def code() -> str:
    """The digest of the files that determine a score."""
    folder, whole = Path(__file__).parent, hashlib.sha256()
    for file in sorted(file for pattern in CODE for file in folder.glob(pattern)):
        whole.update(file.name.encode() + file.read_bytes())
    return whole.hexdigest()


class KeptScores:
    """What is known of an SAE or control. settings: those that are asked for now."""

    def __init__(self, sae: Collected, settings: Mapping[str, Any]) -> None:
        assert sae.file is not None, f"{sae.path} was not read from a file"
        self.sae, self.file = sae, sae.file.parent / FILE
        made_from = {"activations": sha256(sae.file), "code": code()}
        self.identity = made_from | {key: settings[key] for key in OF_SCORES}
        self.of_extras = made_from | {key: settings[key] for key in OF_EXTRAS}

    @property
    def label(self) -> str:
        return f"{self.sae.path} ({self.sae.control})" if self.sae.control else self.sae.path

    def content(self) -> dict[str, Any]:
        """Empty where there is no such file, or a damaged one. Read anew: another rank may have written it."""
        try:
            found = json.loads(self.file.read_text())
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    @property
    def whole(self) -> bool:
        return self.content().get("identity") == self.identity

    def extras(self, extras: Sequence[Extra]) -> KeptExtras:
        found = self.content().get("extras", {})
        return KeptExtras(extras, found if found.get("identity") == self.of_extras else {"identity": self.of_extras})

    def write(self, rows: Rows, extras: KeptExtras) -> None:
        """rows: of this SAE alone."""
        content = {"identity": self.identity, "extras": extras.found, **{name: getattr(rows, name) for name in TABLES}}
        content["means"] = {f"{score}|{mean}": x.tolist() for (_, _, score, mean), x in rows.replicates.means.items()}
        content["documents"] = {score: x.tolist() for (_, score), x in rows.replicates.documents.items()}
        atomic.write(self.file, json.dumps(content, default=lambda x: x.item()))

    def rows(self) -> Rows:
        """With the path and the curve that the SAE has now."""
        content, path, control = self.content(), self.sae.path, self.sae.control or ""
        tables = {name: [{**row, **about_sae(self.sae)} for row in content[name]] for name in TABLES}
        means = {(path, control, *key.split("|")): np.array(x) for key, x in content["means"].items()}
        documents = {(path, score): np.array(x) for score, x in content["documents"].items()}
        return Rows(**tables, replicates=Replicates(means, documents, {path: self.sae.digest}))


class KeptExtras(Extra):
    """Extras that are asked only for what is not known yet."""

    def __init__(self, extras: Sequence[Extra], found: Mapping[str, Any]) -> None:
        self.extras, self.found = extras, dict(found)
        self.of_some = frozenset[str]().union(*(extra.of_some for extra in extras))

    def of_latents(self, sae: Collected, latents: Int64[np.ndarray, " n"]) -> Mapping[str, Float[np.ndarray, " n"]]:
        if self.found.get("latents") != latents.tolist():
            made = {name: x.tolist() for extra in self.extras for name, x in extra.of_latents(sae, latents).items()}
            self.found |= {"latents": latents.tolist(), "of_latents": made}
        return {name: np.array(x, np.float64) for name, x in self.found["of_latents"].items()}

    def of_sae(self, sae: Collected, grounds: Grounds, probed: Probed | None) -> Mapping[str, float | Summed]:
        if "of_sae" not in self.found:
            made = {name: x for extra in self.extras for name, x in extra.of_sae(sae, grounds, probed).items()}
            self.found["of_sae"] = {name: _written(x) for name, x in made.items()}
        return {name: _restored(x) for name, x in self.found["of_sae"].items()}


def _written(score: float | Summed) -> Any:
    if not isinstance(score, Summed):
        return float(score)
    return {"measure": score.measure.__name__, "sums": {name: x.tolist() for name, x in score.sums.items()}}


def _restored(score: Any) -> float | Summed:
    if not isinstance(score, dict):
        return score
    return Summed(getattr(measures, score["measure"]), {name: np.array(x) for name, x in score["sums"].items()})


class Later(Extra):
    """Scores of latents alone, by an extra that is made when it is asked for the first time."""

    def __init__(self, make: Callable[[], Extra]) -> None:
        self._made = cache(make)

    def of_latents(self, sae: Collected, latents: Int64[np.ndarray, " n"]) -> Mapping[str, Float[np.ndarray, " n"]]:
        return self._made().of_latents(sae, latents)
