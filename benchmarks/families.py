"""The families of tests/families.py, from the YAML that `saesweep model` writes: FVU of each site after 20,000 tokens.

    python -m benchmarks.families > table.md     a minute on a CPU

The models have three blocks, d_model 32 and random weights, so FVU says that a site is read and trained on, no more.
"""
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import families
from small import write_text

from saesweep.errors import UsageError

SETTINGS = ("tokens=20_000", "width=128", "sparsity=8", "text.repeat=true")


def main() -> None:
    print("| family | site | hook point | d_in | fvu |", "|---|---|---|---|---|", sep="\n")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        settings = families.base(write_text(folder, 300), *SETTINGS)
        for number, family in enumerate(families.FAMILIES):
            try:
                print(*rows(family, settings, folder / str(number)), sep="\n", flush=True)
            except UsageError as error:
                print(f"| {family} | {error} ||||", flush=True)


def rows(family: str, settings: dict, folder: Path) -> list[str]:
    model = families.described(families.write(family, folder))
    found = families.trained(settings, model, folder / "out")
    return [f"| {family} | {site} | `{model['sites'][site]['module']}`, {model['sites'][site]['tensor']} | {one['d_in']} | "
            f"{one['fvu']:.3f} |" for site, one in found.items()]


if __name__ == "__main__":
    main()
