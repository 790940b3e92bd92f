"""Write the scored latents of a study for other programs.

    saesweep export outputs/NAME --format jsonl
    saesweep export outputs/NAME --format neuronpedia --model gemma-3-270m

jsonl has a line per latent; neuronpedia is the layout that a Neuronpedia server of one's own imports, saedashboard that of
SAEDashboard. They go into outputs/NAME/study/export/, or where --out says.
"""
from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import saesweep.runtime.threads  # noqa: F401 before torch
from saesweep.errors import exit_on_usage_error
from saesweep.runtime import program

FORMATS = ("jsonl", "neuronpedia", "saedashboard")


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog=program.called("export"), description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="of a sweep, or of several, with a finished study")
    parser.add_argument("--format", choices=FORMATS, required=True)
    parser.add_argument("--out", type=Path, help="folder to write to")
    parser.add_argument("--model", help="name of the language model at Neuronpedia, such as gemma-2-2b")
    parser.add_argument("--creator", default="saesweep", help="name that Neuronpedia shows")
    parser.add_argument("--no-logits", action="store_true", help="leave the words out, for which the language model is loaded")
    given = parser.parse_args(words)
    with exit_on_usage_error():
        from saesweep.study.export import jsonl, neuronpedia, read, saedashboard  # torch

        saes = read.finished(given.folder, logits=not given.no_logits)
        out = given.out or given.folder / "study/export" / given.format
        if given.format == "jsonl":
            print(jsonl.write(saes, out))
        else:
            about = neuronpedia.About(given.model, given.creator, given.folder.resolve().name, program.called("study"))
            layout = neuronpedia if given.format == "neuronpedia" else saedashboard
            print(*layout.write(saes, out, about), sep="\n")


if __name__ == "__main__":
    main()
