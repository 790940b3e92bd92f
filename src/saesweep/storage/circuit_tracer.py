"""A transcoder as circuit-tracer 0.5 reads it: one file per layer, with

    W_enc [d_sae, d_in]    W_dec [d_sae, d_out]    b_enc    b_dec    W_skip [d_out, d_in]    activation_function.threshold

of which the last two are there where the transcoder has them.
"""
from pathlib import Path

from saesweep.arch.base import SparseAutoencoder
from saesweep.errors import UsageError
from saesweep.storage.sae_format import write_tensors

SAVED_AS = ("standard", "jumprelu")


def save_for_circuit_tracer(sae: SparseAutoencoder, file: str | Path) -> None:
    """Write a finished transcoder, as `saesweep.load` returns it, to a file for circuit-tracer's `load_relu_transcoder`.

    A file that is there is replaced. Raises UsageError for an SAE, for one with other latents than circuit-tracer's ReLU and
    JumpReLU, and where the tensors that it reads and reconstructs differ in width, as circuit-tracer knows one width alone.
    """
    if not sae.transcodes or sae.saved_as not in SAVED_AS or sae.d_in != sae.d_out:
        is_one = f"{'a transcoder' if sae.transcodes else 'an SAE'} with latents of {type(sae).__name__}"
        raise UsageError(f"{file}: circuit-tracer takes transcoders with ReLU or JumpReLU latents (arch=relu, jumprelu, "
                         f"batchtopk) between tensors of one width, and this is {is_one} from {sae.d_in} to {sae.d_out}")
    tensors = sae.exported()
    tensors["W_enc"] = tensors["W_enc"].T.contiguous()
    if "threshold" in tensors:
        tensors["activation_function.threshold"] = tensors.pop("threshold")
    write_tensors(Path(file), tensors)
