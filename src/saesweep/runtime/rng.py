"""Each random draw of the data has its own generator, so that no draw depends on how many came before."""
import torch

POOL, WINDOW, HELD_OUT, SYNTHETIC, SYNTHETIC_EVALUATION, SYNTHETIC_CALIBRATION, STUDY, SCORED = range(8)  # what is drawn


def generator(*numbers: int) -> torch.Generator:
    """The generator for a seed, what is drawn (POOL to SCORED) and its number."""
    seed = 0
    for number in numbers:
        seed = (seed * 1_000_003 + number + 1) % 2**63
    return torch.Generator().manual_seed(seed)
