"""Every command in the README, docs/ and the headers of sweeps/ composes; every file in CONTRIBUTING.md exists."""
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from standin.cli import ROOT, composed

TEXTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
PAGES = [*TEXTS, *sorted((ROOT / "sweeps").glob("*.yaml"))]
OVERRIDES = r"\+?(trainer|hydra/launcher|cache|logger|text|arch\.\w+|activations\.\w+)=\S"


def shown(page: Path) -> Iterator[str]:
    """Lines of code, and code spans within a line."""
    for line in page.read_text().replace("\\\n", " ").splitlines():
        yield from re.findall(r"`([^`]+)`", line) or ([] if "`" in line else [line.removeprefix("#").strip()])


def commands(page: Path) -> list[list[str]]:
    """The overrides of each command; text after three spaces is a comment."""
    lines = [code.partition("train.py ")[2] for code in shown(page) if "python train.py " in code]
    lines += [code for code in shown(page) if re.match(OVERRIDES, code)]
    words = [shlex.split(re.split(r" {3,}", text.strip())[0]) for text in lines if "..." not in text and "mine" not in text]
    return [[word for word in found if word != "-m"] for found in words if not any(w.startswith("--") for w in found)]


def first_value(word: str) -> str:
    """The first value of a sweep over values; the lower end of an interval."""
    override = OverridesParser.create().parse_override(word)
    if not override.is_sweep_override():
        return word
    if override.is_interval_sweep():
        return f"{override.get_key_element()}={override.value().start}"
    return f"{override.get_key_element()}={next(iter(override.sweep_string_iterator()))}"


SLOW = [pytest.param(page, marks=pytest.mark.slow) for page in PAGES if page.name != "README.md"]


@pytest.mark.parametrize("page", [ROOT / "README.md", *SLOW], ids=lambda page: page.name)
def test_every_command_composes(page, monkeypatch):
    monkeypatch.setenv("SAESWEEP_ROOT", str(ROOT))
    for words in commands(page):
        composed(*map(first_value, words), always=(), whole=True)


def test_commands_are_found():
    found = [words for page in PAGES for words in commands(page)]
    assert ["arch=jumprelu,gated,topk", "sparsity=16,32,64"] in found and ["sweeps=quickstart"] in found
    assert any("hydra/launcher=slurm" in words for words in found) and len(found) > 30


def test_every_file_and_package_that_contributing_md_names_exists():
    text = (ROOT / "CONTRIBUTING.md").read_text()
    section = text[text.index("## The house") : text.index("## Style")]
    package = ROOT / "src/saesweep"
    packages = re.findall(r"[├┌│└─]─? +(\w+)/ ", section)
    assert {"sweep", "engines", "runtime"} <= {*packages}
    for name in packages:
        assert list(package.glob(f"**/{name}/__init__.py")), name
    files = re.findall(r"`([a-z_0-9/]+\.(?:py|yaml))`", section)
    assert len(files) > 10
    for name in files:
        assert any((folder / name).exists() for folder in (ROOT, package, package / "sweep/engines")), name


def test_every_link_of_a_page_has_a_target():
    for page in TEXTS:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
            assert (page.parent / target).exists(), (page.name, target)
