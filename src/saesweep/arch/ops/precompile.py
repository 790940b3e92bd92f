"""Compile the CPU's loops into numba's cache: `python -m saesweep.arch.ops.precompile`.

Left out is one that few runs need: `sum_columns`, for several ranks and AuxK.
"""
import torch

from saesweep.arch.ops import cpu
from saesweep.arch.ops.entries import Adam, Sums


def compile_usual() -> None:
    """Call each loop on a small example with the types of training."""
    batch, d_in, d_sae = 64, 16, 256
    u, W, b_enc, b_dec = torch.randn(batch, d_in), torch.randn(d_sae, d_in), torch.zeros(d_sae), torch.zeros(d_in)
    cpu.choose(u, W, b_enc, torch.full_like(b_enc, 2 * d_in**0.5), 0)
    cpu.choose(u, W, b_enc, None, 4, sure=True)
    chosen = cpu.choose(u, W, b_enc, None, 4)
    assert chosen is not None, "4 of 256 are few enough for a list"
    starts, rows, columns, values = chosen
    residual, _, _ = cpu.reconstruct(starts, rows, columns, values, W, b_dec, u)
    cpu.fired(columns, values, d_sae)
    sums = Sums(*cpu.sort_by_column(columns, d_sae), rows, values, residual)
    formed, _ = cpu.grad_and_norms(sums, W, True)
    cpu.grad_and_norms(formed, W, True)
    numbers = Adam(clip=1.0, step_size=0.1, beta1=0.9, beta2=0.999, unbias=1.0, eps=1e-8)
    for gradient in (sums, formed):
        cpu.adam(W, gradient, torch.zeros_like(W), torch.zeros_like(W), numbers, True)


if __name__ == "__main__":
    compile_usual()
