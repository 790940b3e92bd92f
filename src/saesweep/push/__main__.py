"""Upload finished SAEs to the Hugging Face hub, with the table, the chart, the page and a model card.

    saesweep push outputs/default your-name/gemma-3-270m-saes
    saesweep push outputs/default/gemma3_270m/resid.9/topk your-name/some --dry-run somewhere

The second writes everything into a folder instead, without an account and a network. No path of this machine, no log and no
SAE that has failed goes along (docs/hub.md).
"""
from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from saesweep.errors import exit_on_usage_error
from saesweep.runtime import program

if TYPE_CHECKING:
    from saesweep.push import run

LARGEST = 10  # files that are listed


@exit_on_usage_error()
def main() -> None:
    parser = argparse.ArgumentParser(
        prog=program.called("push"), description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER", help="of a sweep, or of SAEs in it")
    parser.add_argument("repository", metavar="OWNER/NAME", help="of the hub; it is made if it is not there")
    parser.add_argument("--dry-run", type=Path, metavar="FOLDER", help="write everything into this folder, and upload nothing")
    parser.add_argument("--private", action="store_true", help="make a repository that others cannot see, not a public one")
    parser.add_argument("--license", metavar="ID", help="of the language model, where conf/push.yaml does not know it")
    parser.add_argument("--text-license", metavar="NAME", help="of the text, likewise")
    given = vars(parser.parse_args())
    folders, repository = given.pop("folders"), given.pop("repository")
    from saesweep.push import run  # pandas, matplotlib

    where = run.push(folders, repository, run.Options(**given), _say)
    print(where if given["dry_run"] is None else f"written to {where}; the same command without --dry-run uploads it")


def _say(made: run.Made) -> None:
    sizes = list(made.files.items())
    lines = [f"{size / 1e6:10.3f} MB  {name}" for name, size in sizes[:LARGEST]]
    if rest := sizes[LARGEST:]:
        lines.append(f"{sum(size for _, size in rest) / 1e6:10.3f} MB  in {len(rest)} smaller files")
    left_out = "".join(f", {count} {why} left out" for why, count in made.left_out.items())
    lines.append(f"{sum(made.files.values()) / 1e6:10.3f} MB  in all, {made.saes} SAE{'s' * (made.saes > 1)}{left_out}")
    if made.rewritten:
        lines.append(f"of {', '.join(made.rewritten)} only the last part of the path is written")
    print(*lines, sep="\n", flush=True)


if __name__ == "__main__":
    main()
