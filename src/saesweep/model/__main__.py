"""Write conf/model/NAME.yaml for a language model: its blocks, sites, BOS and dtype, without reading a weight.

    saesweep model HuggingFaceTB/SmolLM2-135M
    saesweep model ~/models/mine --name mine

Then look at what it has printed, and train: saesweep train -m model=mine site=resid,mlp arch=jumprelu,topk sparsity=16,32
"""
import argparse
from pathlib import Path

import saesweep.runtime.threads  # noqa: F401 before torch
from saesweep.errors import UsageError, exit_on_usage_error
from saesweep.runtime import program


@exit_on_usage_error()
def main() -> None:
    parser = argparse.ArgumentParser(
        prog=program.called("model"), description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", help="owner/name of the Hugging Face hub, or a folder that save_pretrained wrote")
    parser.add_argument("--name", help="of the model, and of its file; that of the source without it")
    parser.add_argument("--overwrite", action="store_true", help="replace a file that is there")
    given = parser.parse_args()
    print(write(given.source, given.name, given.overwrite))


def write(source: str, name: str | None = None, overwrite: bool = False, folder: Path = Path("conf/model")) -> str:
    """Writes the file, and returns what to show. Raises UsageError, also for a file that is there."""
    from saesweep.config.check import check_name

    check_name("--name", name := name or name_of(source))
    file, packaged = folder / f"{name}.yaml", program.root() / "conf/model" / f"{name}.yaml"
    if file.exists() and not overwrite:
        raise UsageError(f"{file}: is there; give another --name, or replace it with --overwrite")
    if packaged.exists() and packaged.resolve() != file.resolve():
        raise UsageError(f"--name {name}: model={name} comes with saesweep; give another")
    from saesweep.lm.hub import is_folder  # torch
    from saesweep.model.describe import describe
    from saesweep.runtime import atomic

    typed = Path(source).expanduser()
    where = str(typed.resolve()) if typed.is_dir() or is_folder(str(typed)) else source
    found = describe(where)
    atomic.write(file, found.yaml(name, where))
    notes = [f"  {note}" for note in found.notes]
    return "\n".join([f"{file} is written: {found.class_name}, {found.layers} layers, dtype {found.dtype}", found.table(),
                      "check:", *notes, f"  {program.called('train')} model={name} plan=true reads the model and its sites"])


def name_of(source: str) -> str:
    """A name for the file: the last part of the source, in small letters."""
    last = Path(source).expanduser().resolve().name.lower()
    return "".join(one if one.isalnum() else "_" for one in last).strip("_")


if __name__ == "__main__":
    main()
