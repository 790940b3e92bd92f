"""Evaluation on synthetic activations: fidelity, and how well the known dictionary is recovered."""
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from saesweep.data.synthetic import SyntheticSource
from saesweep.evaluation.subject import Measured, Subject
from saesweep.runtime.rng import SYNTHETIC_EVALUATION, generator

DOCUMENT = 128  # independent tokens that are counted as a document


def recovery(dictionary: Float[Tensor, "features d_in"], W_dec: Float[Tensor, "d_sae d_in"]) -> float:
    """Mean over the true features of the largest cosine with a decoder row; all rows have norm one."""
    return float((dictionary.to(W_dec) @ W_dec.T).amax(1).mean())


@torch.no_grad()
def evaluate_synthetic(source: SyntheticSource, subjects: Sequence[Subject], tokens: int) -> list[Measured | Exception]:
    """The metrics of each SAE on `tokens` synthetic activations, or the exception that isolated it."""
    x, documents = source.draw(tokens, generator(source.seed, SYNTHETIC_EVALUATION)), torch.arange(tokens) // DOCUMENT
    for subject in subjects:
        subject.start(int(documents[-1]) + 1)
        with subject.isolate_failures():
            subject.measure(x, documents)
            subject.require_measured()
    return [s.failed or s.result({"recovery": recovery(source.dictionary, s.sae.W_dec)}) for s in subjects]
