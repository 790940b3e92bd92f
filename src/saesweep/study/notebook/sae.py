"""A loaded SAE that shows what a study has found of its latents. No language model is loaded for it, only its tokenizer."""
from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import SupportsIndex, cast

from saesweep.study import written
from saesweep.study.collect import collected_sae
from saesweep.study.notebook import examples, explained
from saesweep.study.notebook.studied import Studied
from saesweep.study.notebook.views import Examples
from saesweep.study.subjects import sweep_of
from saesweep.training import loaded
from saesweep.training.loaded import LoadedSAE


class StudiedSAE(LoadedSAE):
    """Its study is found by its folder, and is read when it is first asked for."""

    def examples(self, latent: SupportsIndex, group: str = "top", n: int = 20) -> Examples:
        """Held-out text on which a latent is active, or silent: a view of it, with the numbers as `.table`, a DataFrame.

        group: top          the strongest activations
               decile       as many from each tenth of its activations, by their number
               interval     as many from each fifth of the range from 0 to the largest one
               random       text on which it is silent
               same_token   the commonest tokens of its strongest activations, in text on which it is silent
        n: at most so many examples; for deciles and intervals it is rounded up to as many from each.
        The study keeps all activations of some latents, at least those that it may have scored; of the others it has `top`, and
        `decile` and `interval` from a sample of 100 activations. `table` has the columns
            value              activation at the token, in the units of `encode`; 0 where it is silent
            share              of the latent's largest activation on this text
            token              the token, as it stands in the text
            document, index    number of the document in the study's test half, and of the token in it
            position           number of the token in the test half, special tokens counted
            part               1 to 10 (decile) or 1 to 5 (interval), from the weakest; only for these groups
            tokens, values     lists: the tokens around it, itself included, and the activations on them
            at                 which of `tokens` it is, from 0
        Raises UsageError where the SAE was not studied, and for a latent or group that does not exist.
        """
        return examples.examples(self._studied, latent, group, n)

    def explain(self, latent: SupportsIndex) -> explained.Explained:
        """What a study says of a latent: the rule in words and how well it fits, how often the latent is active, and the
        explanation of a model with its scores. `.scores` has all scores of the latent, by the columns of scores.csv.

        Of a latent that was not scored it says why, and what is known. Raises UsageError where the SAE was not studied, and
        for a latent that does not exist.
        """
        return explained.explained(self._studied, latent)

    @cached_property
    def _studied(self) -> Studied:
        """Raises UsageError where it was not studied, or was trained again since."""
        return Studied(collected_sae(self.folder), written.settings_of(sweep_of(self.folder)), self.statistics.scale)


def load(folder: str | Path, device: str = "cpu") -> StudiedSAE:
    """A trained SAE: `encode` [tokens, d_in] -> [tokens, d_sae] and `decode` back, in raw activation units; after a study of
    its sweep, `examples` and `explain` show its latents.

    folder: on this machine, or owner/name/folder[@revision] of the Hugging Face hub, of which its own files are downloaded
    unless they are in the cache. Raises UsageError where it holds no finished SAE.
    """
    return cast(StudiedSAE, loaded.load(folder, device, StudiedSAE))
