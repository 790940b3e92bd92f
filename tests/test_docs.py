"""What the README, docs/ and the headers of sweeps/ say to type composes, and the files that the map names are there."""
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from standin.cli import ROOT, composed

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "sweeps").glob("*.yaml"))]
OVERRIDES = r"\+?(trainer|hydra/launcher|cache|logger|text|arch\.\w+|activations\.\w+)=\S"


def shown(page: Path) -> Iterator[str]:
    """Lines of code, and code within a line."""
    for line in page.read_text().replace("\\\n", " ").splitlines():
        yield from re.findall(r"`([^`]+)`", line) or ([] if "`" in line else [line.removeprefix("#").strip()])


def commands(page: Path) -> list[list[str]]:
    """The overrides of each command; what stands after three blanks is a remark."""
    typed = [code.partition("train.py ")[2] for code in shown(page) if "python train.py " in code]
    typed += [code for code in shown(page) if re.match(OVERRIDES, code)]
    words = [shlex.split(re.split(r" {3,}", text.strip())[0]) for text in typed if "..." not in text and "mine" not in text]
    return [[word for word in found if word != "-m"] for found in words if not any(w.startswith("--") for w in found)]


def one_of(word: str) -> str:
    """Of a sweep over values the first."""
    override = OverridesParser.create().parse_override(word)
    if not override.is_sweep_override():
        return word
    return f"{override.get_key_element()}={next(iter(override.sweep_string_iterator()))}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_that_is_shown_composes(page, monkeypatch):
    monkeypatch.setenv("SAESWEEP_ROOT", str(ROOT))
    for words in commands(page):
        composed(*map(one_of, words), always=(), whole=True)


def test_commands_are_found():
    found = [words for page in PAGES for words in commands(page)]
    assert ["arch=jumprelu,gated,topk", "sparsity=16,32,64"] in found and ["sweeps=quickstart"] in found
    assert any("hydra/launcher=slurm" in words for words in found) and len(found) > 30


def test_every_file_that_the_map_names_is_there():
    text = (ROOT / "README.md").read_text()
    drawn = text[text.index("## The map") : text.index("## Adding things")]
    there = {path.name for folder in (ROOT, ROOT / "src") for path in folder.glob("**/*.py" if folder != ROOT else "*.py")}
    assert {name for name in re.findall(r"[a-z_0-9]+\.py", drawn)} <= there
