"""The program `saesweep`: one command per word, and nothing heavy is imported before one is chosen."""
import difflib
import os
import sys
from collections.abc import Sequence
from importlib import import_module

from saesweep.errors import exit_on_usage_error
from saesweep.runtime import program

COMMANDS = {  # each is `main` of this module
    "train": ("saesweep.cli.train", "train one SAE, or with -m a sweep; saesweep train --help lists the settings"),
    "model": ("saesweep.model.__main__", "write the file of conf/model for a language model: its blocks, sites and BOS"),
    "pareto": ("saesweep.report.pareto", "compare the SAEs of one or more sweeps: a table, figures and a page"),
    "evaluate": ("saesweep.imported.__main__", "measure SAEs that others have trained, as points on the chart of a sweep"),
    "study": ("saesweep.study.__main__", "say what the latents of finished SAEs mean, by scores and by a language model"),
    "ablate": ("saesweep.study.ablation.__main__", "say what is lost without the latents that fire often"),
    "rate": ("saesweep.study.rate", "let people rate the latents of a study, without knowing of which SAE they are"),
    "report": ("saesweep.study.report", "say what the raters of a study say, and whether they agree"),
    "export": ("saesweep.study.export.__main__", "write the latents of a study for other programs"),
    "push": ("saesweep.push.__main__", "upload finished SAEs to the Hugging Face hub, or write what would be uploaded"),
    "dashboard": ("saesweep.report.dashboard", "save a W&B workspace for the runs of a project"),
    "join": ("saesweep.sweep.engines.join", "run this node's share of a sweep that another node has started"),
}
COMPLETION = ("-sc", "--shell-completion")


def main() -> None:
    """The entry point. A user's mistake ends it with exit code 1 and one line."""
    os.environ[program.INSTALLED] = "1"
    command, *words = sys.argv[1:] or ["--help"]
    if command in ("-h", "--help"):
        print(_help())
    elif command == "--version":
        from importlib.metadata import version

        print(f"saesweep {version('saesweep')}")
    elif command in COMPLETION:
        _complete()
    elif command in COMMANDS:
        _run(command, words)
    else:
        sys.exit(_unknown(command))


def _help() -> str:
    lines = [f"  {name:<11}{text}" for name, (_, text) in COMMANDS.items()]
    usage = "usage: saesweep COMMAND ...      saesweep COMMAND --help says more; saesweep --version"
    return "\n".join(["Train sparse autoencoders on a language model's activations and compare them at matched sparsity.",
                      "", usage, "", *lines])


def _run(command: str, words: Sequence[str]) -> None:
    """`train` keeps the name of the program, which shell completion is registered for."""
    sys.argv = [sys.argv[0] if command == "train" else f"saesweep {command}", *words]
    with exit_on_usage_error():
        import_module(COMMANDS[command][0]).main()


def _complete() -> None:
    """Hydra's completion calls the program with the line so far in COMP_LINE, without the word `train`."""
    name, *typed = os.environ.get("COMP_LINE", "").split(" ")
    if typed[:1] == ["train"] and len(typed) > 1:
        os.environ["COMP_LINE"] = " ".join([name, *typed[1:]])
        _run("train", sys.argv[1:])
    else:
        print(*COMMANDS)


def _unknown(word: str) -> str:
    if "=" in word or word.startswith("-"):
        return f"{word}: is no command; settings come after one: saesweep train {' '.join(sys.argv[1:])}"
    close = difflib.get_close_matches(word, COMMANDS, n=1)
    fix = f"did you mean {close[0]}? There are" if close else "there are"
    return f"{word}: there is no such command; {fix} {', '.join(COMMANDS)}"
