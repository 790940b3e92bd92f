"""What the latents that fire often carry: FVU and delta loss without them, and without as many firings of other latents.

    saesweep ablate outputs/default
    saesweep ablate outputs/default/gemma3_270m/resid.9/topk/64 --out outputs/ablated threshold=0.05

reads held-out text once for all SAEs of a hook point, and writes ablation.csv, a row per SAE and ablation, and
ablation_summary.csv, a row per curve, target L0 and kind of ablation. Settings are those of conf/ablate.yaml, as
key=value.
"""
import argparse
from pathlib import Path

import saesweep.runtime.threads  # noqa: F401 before torch
from saesweep.errors import UsageError, exit_on_usage_error
from saesweep.runtime import program
from saesweep.study.ablation.settings import settings


@exit_on_usage_error()
def main() -> None:
    parser = argparse.ArgumentParser(
        prog=program.called("ablate"), description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="+", metavar="FOLDER or key=value", help="folders of sweeps or of SAEs; settings")
    parser.add_argument("--out", type=Path, help="folder of the tables; SAEs of several sweeps need one")
    given = parser.parse_intermixed_args()
    folders = [Path(word) for word in given.words if "=" not in word or Path(word).is_dir()]
    words = [word for word in given.words if Path(word) not in folders]
    if not folders:
        raise UsageError(f"{' '.join(words)}: name the folder of a sweep too, such as outputs/default")
    found = settings(words)
    from saesweep.study.ablation import run, text  # torch

    made = run.run(folders, found, given.out)
    print(text.text(made.summary), "", *made.files, sep="\n")


if __name__ == "__main__":
    main()
