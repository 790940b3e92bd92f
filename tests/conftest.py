"""Before torch is imported: threads that spin for long while they wait are many times slower beside any other busy process."""
import gc
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import typechecker  # before a module of saesweep is imported
import warm
from warm_imports import import_libraries

os.environ.setdefault("OMP_NUM_THREADS", "1")  # the cores are shared by as many workers; some last bits depend on it
os.environ.setdefault("GOMP_SPINCOUNT", "20000")  # as saesweep.runtime.threads, which would be imported too early here
os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "4")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # products of a GPU have the same bits each time
if not any(Path("/dev").glob("nvidia[0-9]*")):
    os.environ.setdefault("TRITON_INTERPRET", "1")  # the GPU's kernels on CPU tensors; read when triton is imported

SRC = Path(__file__).parents[1] / "src"
compilation = None  # of the CPU's kernels, while the workers start


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config):
    """Before jaxtyping's hook, which has what a module of saesweep imports first compiled from its source each time."""
    global compilation
    if not hasattr(config, "workerinput"):
        warm.start()  # none where this is a program of such a server itself
        config.option.tx = [f"popen//python={warm.WORKER}" for _ in config.option.tx or ()]
    if not config.getoption("numprocesses"):  # a worker, or the only process
        import_libraries()
    elif not compiled():
        command = [sys.executable, "-m", "saesweep.arch.ops.precompile"]
        compilation = subprocess.Popen(command, env=os.environ | {"PYTHONPATH": str(SRC)})


def compiled():
    """Whether numba's cache has the kernel that is compiled last."""
    kernels = SRC / "saesweep/arch/ops/kernels.py"
    last = (kernels.parent / "__pycache__").glob("kernels.adam_rows-*.nbi")
    return any(file.stat().st_mtime > kernels.stat().st_mtime for file in last)


def pytest_collection_finish():
    """The garbage collector, which each training calls, never looks at the libraries and the tests again."""
    gc.freeze()


def pytest_xdist_node_collection_finished():
    """No test starts before the kernels are compiled: every program would compile all of them."""
    if compilation is not None:
        compilation.wait()


def pytest_xdist_auto_num_workers(config):
    """One process for the tests of one file; for those of several, one per core, and two more for the slow ones, since tests
    of programs wait much (at most 4: about 1 GB each)."""
    files = {argument.split("::")[0] for argument in config.args}
    if len(files) == 1 and next(iter(files)).endswith(".py"):
        return 0
    return min(len(os.sched_getaffinity(0)) + 2 * (config.option.markexpr != "not slow"), 4)


LONGEST = (  # in this order, so that the workers, which take one file after the other, end together
    "ranks", "slurm", "study_scoring", "gpu_benchmark", "models", "training", "launcher", "checkpoints", "kills", "cli",
    "faults", "study_variants", "page", "live_table", "study_of_training", "compare", "l0_controller", "study_notebook",
    "contract", "arch", "model_kinds",
)
SLOW_FIXTURES = {"window": ["browser", "slow"], "reference_sweep": ["slow"], "trained": ["slow"], "fresh": ["slow", "process"]}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Marks what a fixture makes slow. The longest files come first, then those with many slow tests."""
    for item in items:
        for fixture in SLOW_FIXTURES.keys() & set(item.fixturenames):
            for marker in SLOW_FIXTURES[fixture]:
                item.add_marker(marker)
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    longest = {f"test_{name}.py": place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: (longest.get(item.path.name, len(LONGEST)), -slow[item.path]))


@pytest.fixture
def without_type_checks():
    """For a test that is long, where other tests have the shapes and types of all that it calls checked."""
    with typechecker.unchecked():
        yield


@pytest.fixture
def without_figures(monkeypatch):
    """The figures of each report are empty files: for commands that train in no time, which would draw for most of theirs."""
    from saesweep.report import figures

    for name in ("pareto", "frequency"):
        monkeypatch.setattr(figures, name, lambda *_: {"png": b"", "svg": b""})


@pytest.fixture
def without_wandb_login(monkeypatch, tmp_path):
    from offline import refuse_network_and_logins

    refuse_network_and_logins(monkeypatch, tmp_path)


@pytest.fixture(scope="session")
def reference_sweep(tmp_path_factory, worker_id):
    """The folder of a small finished sweep of every architecture, with all loggers of the tests.

    It is trained once for all workers, and no test changes it: one that needs a changed sweep copies it.
    """
    from offline import train_reference
    from small import once_for_all_workers

    return once_for_all_workers(tmp_path_factory, worker_id, "reference", train_reference) / "outputs/default"


@pytest.fixture(scope="session")
def fresh(tmp_path_factory, worker_id):
    """The folder in which a newly started Python has left what it found (fresh.py)."""
    import fresh
    from small import once_for_all_workers

    return once_for_all_workers(tmp_path_factory, worker_id, "fresh", fresh.start)


@pytest.fixture(scope="session")
def found_fresh(fresh):
    return json.loads((fresh / "found.json").read_text())
