r"""SAEs that others have trained, as points on the chart of a sweep.

    saesweep evaluate --like outputs/gpt2/gpt2/resid.8 ~/saes/gpt2/layer_8
    saesweep evaluate --like outputs/default/gemma3_270m/resid.9 \
        google/gemma-scope-2-270m-pt/resid_post/layer_9_width_16k_l0_small

measures them on the held-out tokens of the SAEs there, and writes the folder of an SAE for each, beside those of the sweep.
They are in no comparison: they were trained on other text, and for longer (docs/imported.md).
"""
import argparse
import sys
from pathlib import Path

import saesweep.runtime.threads  # noqa: F401 before torch
from saesweep.errors import exit_on_usage_error
from saesweep.runtime import program


@exit_on_usage_error()
def main() -> None:
    parser = argparse.ArgumentParser(
        prog=program.called("evaluate"), description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sources", nargs="+", metavar="SOURCE", help="a folder, a file, or owner/name/folder[@revision] of the "
                        "Hugging Face hub, of SAELens, Gemma Scope, dictionary_learning, sparsify, Llama Scope or Qwen Scope")
    parser.add_argument("--like", type=Path, required=True, metavar="FOLDER", help="of a hook point, or of one SAE, of a sweep")
    parser.add_argument("--out", type=Path, help="folder of the sweep to write to; that of --like without it")
    parser.add_argument("--name", metavar="CURVE", help="name of the curve; that of the format without it")
    parser.add_argument("--tokens", type=_count, metavar="N", help="that they were trained on, where their files do not say")
    parser.add_argument("--scale", type=float, metavar="A", help="that their activations were multiplied by, likewise")
    parser.add_argument("--any-name", action="store_true", help="measure although the name of the model or the site differs")
    parser.add_argument("--overwrite", action="store_true", help="replace what was measured before")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    given = vars(parser.parse_args())
    sources = given.pop("sources")
    from saesweep.imported import run  # torch

    options = run.Options(**given)
    ended = run.run(sources, options)
    print(*map(_line, ended), sep="\n")
    if any(one.problem for one in ended):
        sys.exit("some could not be measured")
    print(f"\n{program.called('pareto')} {options.out or ended[0].folder.parents[3]} draws them")


def _count(text: str) -> int:
    """4e9 and 4_000_000_000."""
    value = float(text)
    if value != int(value) or value <= 0:
        raise argparse.ArgumentTypeError(f"{text}: must be a whole number above 0")
    return int(value)


def _line(one) -> str:
    if one.metrics is None:
        return f"{one.folder}: {one.problem or 'was measured before'}"
    values = {key: one.metrics[key] for key in ("l0", "fvu", "delta_loss")}
    return f"{one.folder}: {', '.join(f'{key} {value:.4g}' for key, value in values.items() if value is not None)}"


if __name__ == "__main__":
    main()
