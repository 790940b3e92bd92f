"""Transcoders: an SAE that reconstructs another tensor than it reads, such as an MLP's output y from its input x.

    pi    = x W_enc + b_enc                            no pre-encoder bias
    y_hat = f W_dec + b_dec (+ x W_skip)               W_dec [d_sae, d_out], rows of norm one; W_skip [d_in, d_out]
    loss  = ||y - y_hat||^2 + what the architecture adds        d loss / d W_skip = 2 / B x^T (y_hat - y)

f is that of the architecture (Dunefsky et al. 2024, arXiv:2406.11944; with W_skip Paulo et al. 2025, arXiv:2501.18823). W_enc
and W_dec are drawn independently, W_skip is 0 at the start. x and y are normalised each by its own mean and scale,
x = s_x x' + mu_x and y = s_y y' + mu_y, which `fold_input_` and `fold_` write into the weights, with r = s_y / s_x:

    W_enc -> r W_enc        b_enc -> s_y b_enc - r mu_x W_enc        theta -> s_y theta
    W_skip -> r W_skip      b_dec -> s_y b_dec + mu_y - r mu_x W_skip

f is then s_y times that of the training. A training batch is [x | y].
"""
import torch
from torch import nn

from saesweep.arch.base import SparseAutoencoder


def transcode_(sae: SparseAutoencoder, d_out: int, skip: bool) -> None:
    """Make an untrained SAE a transcoder to d_out values per token; W_enc stays as it was drawn."""
    W_dec = nn.init.kaiming_uniform_(torch.empty(sae.d_sae, d_out))
    sae.W_dec = nn.Parameter(W_dec / W_dec.norm(dim=1, keepdim=True))
    sae.b_dec = nn.Parameter(torch.zeros(d_out))
    sae.transcodes = True
    if skip:
        sae.W_skip = nn.Parameter(torch.zeros(sae.d_in, d_out))
