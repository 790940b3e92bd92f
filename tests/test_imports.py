"""Each package imports only those below it, and no files import each other in a circle."""
import ast
import sys
from functools import cache
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "src/saesweep"
ORDER = (  # from the top down, as in CONTRIBUTING.md
    "api", "push", "imported", "sweep", "study", "report", "training", "evaluation", "loggers", "data", "storage", "arch",
    "model", "lm", "config", "runtime", "errors", "old_names",
)
ENTRIES = ("__init__", "cli")  # above all of them
OF_ARCH = {"torch", "numba", "llvmlite", "numpy", "triton", "jaxtyping"}


@cache
def modules() -> dict:
    """The file of each module, by its dotted name below saesweep."""
    return {".".join(file.relative_to(PACKAGE).with_suffix("").parts): file for file in PACKAGE.rglob("*.py")}


def imported(file) -> list[str]:
    """All modules and names that a file imports, also within functions."""
    found = []
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found += [f"{node.module}.{alias.name}" for alias in node.names]
    return found


@cache
def edges() -> list[tuple[str, str]]:
    """Pairs (importing module, imported module) within saesweep."""
    known, found = modules(), []
    for name, file in known.items():
        for target in imported(file):
            parts = target.split(".")[1:] if target.split(".")[0] == "saesweep" else []
            candidates = [".".join(parts[:n]) for n in range(len(parts), 0, -1)]
            candidates += [f"{one}.__init__" for one in candidates]
            if (hit := next((one for one in candidates if one in known), None)) and hit != name:
                found.append((name, hit))
    return found


def test_every_import_points_downwards():
    up = []
    for one, other in edges():
        above, below = one.split(".")[0], other.split(".")[0]
        if above in ENTRIES or above == below:
            continue
        if below in ENTRIES or ORDER.index(above) > ORDER.index(below):
            up.append(f"{one} imports {other}, which is above it")
    assert not up, "\n".join(up)


def test_no_files_import_each_other_in_a_circle():
    imports = {name: {other for one, other in edges() if one == name} for name in modules()}
    while imports:
        free = [name for name, others in imports.items() if not others & imports.keys()]
        assert free, f"a circle among {sorted(imports)}"
        for name in free:
            del imports[name]


def test_architectures_import_only_torch_their_own_package_and_the_ranges():
    for name, file in modules().items():
        if name.split(".")[0] == "arch":
            ours = [target for target in imported(file) if target.startswith("saesweep.")]
            assert all(target.startswith(("saesweep.arch", "saesweep.config.ranges.")) for target in ours), (name, ours)
            others = {target.split(".")[0] for target in imported(file)} - {"saesweep", "__future__", *sys.stdlib_module_names}
            assert others <= OF_ARCH, (name, others)


@pytest.mark.slow
def test_no_module_keeps_a_model_or_a_text_for_the_whole_process():
    """A Resources object holds them, and is passed down."""
    for name, file in modules().items():
        for node in ast.parse(file.read_text()).body:
            if isinstance(node, ast.FunctionDef) and any("cache" in ast.unparse(one) for one in node.decorator_list):
                kept = ast.unparse(node.returns) if node.returns else ""
                assert not any(kind in kept for kind in ("Model", "Corpus", "Tokenizer", "HeldOut", "Tensor")), name
