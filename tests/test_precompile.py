"""The CPU's kernels are compiled in the background while a sweep is prepared."""
import sys
from pathlib import Path

import pytest
import warm
from omegaconf import OmegaConf
from standin.cli import ENV, ROOT

from saesweep.sweep import compilation
from saesweep.sweep.jobs import Job

STEPS = """
import sys
import torch
sys.path.append(sys.argv[1])
from benchmarks.step import ours
x = torch.randn(64, 16)
for arch in ("jumprelu", "gated", "topk"):
    ours(arch, x, 256, 4, False)[1](x)
"""


def job(accelerator):
    found = Job(OmegaConf.create({}), Path("job"), Path("sweep"))
    vars(found)["settings"] = {"trainer": {"accelerator": accelerator}}
    return found


@pytest.mark.slow
@pytest.mark.process
@pytest.mark.kernels
def test_after_precompilation_a_training_step_compiles_nothing(tmp_path):
    """Without optimisation, which takes most of the time, and changes nothing in what is compiled."""
    environment = ENV | {"NUMBA_CACHE_DIR": str(tmp_path / "cache"), "NUMBA_OPT": "0"}
    (tmp_path / "steps.py").write_text(STEPS)
    found = []
    for command in (["-m", "saesweep.arch.ops.precompile"], [str(tmp_path / "steps.py"), str(ROOT)]):
        done = warm.run([sys.executable, *command], ROOT, environment)
        assert done.returncode == 0, done.stderr
        found.append({file.name: file.stat().st_mtime_ns for file in tmp_path.rglob("*.nbc")})
    assert len(found[0]) > 10 and found[0] == found[1]


def test_precompilation_stops_if_the_plan_raises(monkeypatch):
    monkeypatch.setattr(compilation, "_compiled", lambda: False)
    with pytest.raises(ZeroDivisionError), compilation.compiling([job("gpu"), job("cpu")]):
        process = compilation._process
        assert process.poll() is None
        raise ZeroDivisionError
    assert process.poll() is not None and compilation._process is None
    compilation.wait()


@pytest.mark.parametrize(("compiled", "accelerator"), [(True, "cpu"), (False, "gpu")])
def test_nothing_is_precompiled_if_the_kernels_are_cached_or_no_job_runs_on_a_cpu(monkeypatch, compiled, accelerator):
    monkeypatch.setattr(compilation, "_compiled", lambda: compiled)
    with compilation.compiling([job(accelerator)]):
        assert compilation._process is None
