"""The CPU's kernels are compiled in the background while a sweep is prepared."""
import json
import sys
from pathlib import Path

import pytest
import warm
from omegaconf import OmegaConf
from standin.cli import ENV, ROOT

from saesweep.sweep import compilation
from saesweep.sweep.jobs import Job

# runs one of both, and writes by loop the types of arguments for which it was loaded from the cache, or compiled
PROGRAM = """
import json, runpy, sys
from pathlib import Path
import torch
root, what, found = sys.argv[1:]
sys.path.append(root)
if what == "precompile":
    runpy.run_module("saesweep.arch.ops.precompile", run_name="__main__")
else:
    from benchmarks.step import ours
    x = torch.randn(64, 16)
    for arch in ("jumprelu", "gated", "topk"):
        ours(arch, x, 256, 4, False)[1](x)
from saesweep.arch.ops import int16, kernels
stats = {name: loop.stats for one in (int16, kernels) for name, loop in vars(one).items() if hasattr(loop, "stats")}
types = {key: [f"{name}{one}" for name, of in stats.items() for one in getattr(of, key)]
         for key in ("cache_hits", "cache_misses")}
Path(found).write_text(json.dumps(types))
"""


def job(accelerator):
    found = Job(OmegaConf.create({}), Path("job"), Path("sweep"))
    vars(found)["settings"] = {"trainer": {"accelerator": accelerator}}
    return found


@pytest.mark.slow
@pytest.mark.process
@pytest.mark.kernels
def test_after_precompilation_a_training_step_compiles_nothing(tmp_path):
    """Both in processes of their own, with the cache of the package; of what others have put there the step takes nothing."""
    (tmp_path / "program.py").write_text(PROGRAM)
    found = []
    for what in ("precompile", "step"):
        words = [sys.executable, str(tmp_path / "program.py"), str(ROOT), what, str(tmp_path / what)]
        done = warm.run(words, ROOT, ENV)
        assert done.returncode == 0, done.stderr
        found.append({key: set(types) for key, types in json.loads((tmp_path / what).read_text()).items()})
    precompiled, step = found
    assert step["cache_misses"] == set() and len(step["cache_hits"]) > 10
    assert step["cache_hits"] <= precompiled["cache_hits"] | precompiled["cache_misses"]


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
