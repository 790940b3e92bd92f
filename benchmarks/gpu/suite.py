"""The tests that use a GPU where there is one."""
from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.gpu.section import Section
from benchmarks.gpu.sizes import ROOT

SHOWN = 8000  # characters of the end of the output


def run(section: Section) -> None:
    with TemporaryDirectory() as folder:
        output = Path(folder) / "output"
        ended = _pytest(section, output)
        text = output.read_text()
    results = Counter(re.findall(r"^\S+::.* (PASSED|FAILED|ERROR|SKIPPED)", text, re.MULTILINE))
    section.row("tests", **{name.lower(): results[name] for name in ("PASSED", "FAILED", "ERROR", "SKIPPED")}, ended=ended)
    for line in re.findall(r"^(?:FAILED|ERROR) .*", text, re.MULTILINE):
        section.note(line)
    if not ended or results["FAILED"] + results["ERROR"] or not results["PASSED"]:
        section.fail("not all tests passed", text[-SHOWN:])


def _pytest(section: Section, output: Path) -> bool:
    """Whether it ended in the time that is left; one line per test, as it ends."""
    words = ["-n0", "-v", "-rfE", "--tb=short", "-p", "no:cacheprovider", *section.sizes["tests"]]
    with output.open("w") as file:
        process = subprocess.Popen([sys.executable, "-m", "pytest", *words], cwd=ROOT, stdout=file, stderr=subprocess.STDOUT)
        try:
            process.wait(max(1.0, section.time_left()))
        except subprocess.TimeoutExpired:
            section.note("no time was left for the rest of the tests")
            return False
        finally:
            process.kill()
            process.wait()
    return True
