"""Everything random of the data is drawn from a generator of its own, so that no draw depends on how many came before."""
import torch

POOL, WINDOW, HELD_OUT, SYNTHETIC, SYNTHETIC_EVALUATION, SYNTHETIC_CALIBRATION = range(6)  # what is drawn


def generator(*numbers: int) -> torch.Generator:
    """A random generator of its own for these: a seed, what is drawn (POOL to SYNTHETIC_CALIBRATION), which of them."""
    seed = 0
    for number in numbers:
        seed = (seed * 1_000_003 + number + 1) % 2**63
    return torch.Generator().manual_seed(seed)
