"""What the study of a sweep knows of one of its SAEs, found by the SAE's folder."""
from __future__ import annotations

import operator
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, SupportsIndex

import numpy as np
import pandas as pd

from saesweep.config.settings import target
from saesweep.errors import UsageError
from saesweep.lm import models
from saesweep.storage import study_tables
from saesweep.study import written
from saesweep.study.examples import Places
from saesweep.study.hits import Collected
from saesweep.study.pages.groups import percent
from saesweep.study.pieces import Pieces
from saesweep.study.sampling import eligible
from saesweep.study.subjects import sweep_of


@dataclass(frozen=True)
class Studied:
    sae: Collected
    settings: Mapping[str, Any]  # of the last study
    scale: float  # units of `encode` in a training unit

    @property
    def title(self) -> str:
        """`topk 32 (gemma3_270m, resid, layer 9)`; in place of topk the name of the curve."""
        config = self.sae.config
        sparsity = "fixed coefficient" if (wanted := target(config)) is None else f"{wanted:g}"
        seed = f", seed {config['seed']}" if config["seed"] else ""
        place = f"{config['model']['name']}, {config['site']['name']}, layer {config['layer']}"
        return f"{self.sae.curve} {sparsity}{seed} ({place})"

    @property
    def sweep(self) -> Path:
        return sweep_of(self.sae.folder)

    @cached_property
    def pieces(self) -> Pieces:
        return Pieces(models.load_tokenizer(self.sae.config["model"]))

    @cached_property
    def places(self) -> Places:
        return Places(self.sae.test.text)

    def latent(self, asked: SupportsIndex) -> int:
        """Raises UsageError for a latent that the SAE does not have."""
        latent = operator.index(asked)
        if not 0 <= latent < self.sae.d_sae:
            raise UsageError(f"latent={latent}: this SAE has the latents 0 to {self.sae.d_sae - 1}")
        return latent

    def scores(self) -> pd.DataFrame:
        """The rows of scores.csv of this SAE, by latent. Raises UsageError where there are none."""
        for folder in written.folders_of_tables(self.sweep):
            if (file := folder / study_tables.FOLDER / study_tables.SCORES).is_file():
                table, path = study_tables.read(file), Path(os.path.relpath(self.sae.folder, folder)).as_posix()
                if len(mine := table.loc[(table["path"] == path) & table["control"].isna()]):
                    return mine.set_index("latent")
        raise UsageError(f"{self.sae.folder}: its latents are not scored yet; run {written.command(self.sweep)}")

    def dead(self, latent: int) -> bool:
        return not (self.sae.fit.fires[latent] or self.sae.test.fires[latent])

    def activity(self, latent: int) -> str:
        fit, test = self.sae.fit, self.sae.test
        if self.dead(latent):
            tokens = int(fit.measured.sum()) + int(test.measured.sum())
            return f"Dead on the text of the study: silent on all {tokens:,} tokens of both halves."
        if not test.fires[latent]:
            return f"Silent on the test half, of which examples are; active on {_count(fit.fires[latent], 'token')} of fit."
        tokens, documents = _count(test.fires[latent], "token"), f"{test.documents[latent]:,} of {len(test.text.documents):,}"
        return (f"Active on {percent(float(test.frequency[latent]))} of the tokens of the test half: {tokens} in {documents} "
                "documents.")

    def why_not_scored(self, latent: int) -> str:
        """Of a latent without a row of scores.csv that is not dead."""
        fires, documents = self.settings["min_fires"], self.settings["min_documents"]
        allowed = eligible(self.sae, fires, documents)
        if allowed[latent]:
            return (f"It was not scored: features={self.settings['features']} of the {allowed.sum():,} latents that are active "
                    "often enough were drawn, and it is not among them.")
        found = (f"{_count(half.fires[latent], 'token')} in {_count(half.documents[latent], 'document')} of the {name} half"
                 for name, half in (("fit", self.sae.fit), ("test", self.sae.test)))
        return (f"It was not scored, as it is active too seldom: on {' and '.join(found)}; min_fires={fires} and "
                f"min_documents={documents} are needed in each.")


def _count(count: np.integer, word: str) -> str:
    number = int(count)
    return f"{number:,} {word}{'s' * (number != 1)}"
