"""The CPU's loops are compiled beside the preparation of a sweep."""
import os
import subprocess
import sys
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from saesweep.sweep import compilation
from saesweep.sweep.jobs import Job

ROOT = Path(__file__).parents[1]
STEPS = """
import torch
from benchmarks.step import ours
x = torch.randn(64, 16)
for arch in ("jumprelu", "gated", "topk"):
    ours(arch, x, 256, 4, False)[1](x)
"""


def job(accelerator):
    made = Job(OmegaConf.create({}), Path("job"), Path("sweep"))
    vars(made)["settings"] = {"trainer": {"accelerator": accelerator}}
    return made


@pytest.mark.slow
@pytest.mark.process
@pytest.mark.kernels
def test_after_compiling_ahead_a_training_step_has_nothing_to_compile(tmp_path):
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)}
    found = []
    for command in (["-m", "saesweep.arch.ops.precompile"], ["-c", STEPS]):
        subprocess.run([sys.executable, *command], cwd=ROOT, env=environment, check=True)
        found.append({file.name: file.stat().st_mtime_ns for file in tmp_path.rglob("*.nbc")})
    assert len(found[0]) > 10 and found[0] == found[1]


def test_compiling_ahead_ends_with_the_plan_also_where_a_mistake_ends_that(monkeypatch):
    monkeypatch.setattr(compilation, "_compiled", lambda: False)
    with pytest.raises(ZeroDivisionError), compilation.compiling([job("gpu"), job("cpu")]):
        process = compilation._process
        assert process.poll() is None
        raise ZeroDivisionError
    assert process.poll() is not None and compilation._process is None
    compilation.wait()


@pytest.mark.parametrize(("compiled", "accelerator"), [(True, "cpu"), (False, "gpu")])
def test_nothing_is_compiled_ahead_where_all_is_compiled_or_nothing_runs_on_the_cpu(monkeypatch, compiled, accelerator):
    monkeypatch.setattr(compilation, "_compiled", lambda: compiled)
    with compilation.compiling([job(accelerator)]):
        assert compilation._process is None
