"""Before torch is imported: threads that spin for long while they wait are many times slower beside any other busy process."""
import os

import pytest

os.environ.setdefault("GOMP_SPINCOUNT", "20000")  # as saesweep.runtime.threads, which would be imported too early here
os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "4")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
if not os.path.exists("/dev/nvidia0"):
    os.environ.setdefault("TRITON_INTERPRET", "1")  # the GPU's kernels on CPU tensors; read when triton is imported


@pytest.fixture
def nobody_is_logged_in(monkeypatch, tmp_path):
    from offline import no_network_and_no_account

    no_network_and_no_account(monkeypatch, tmp_path)


@pytest.fixture(scope="session")
def sweep(tmp_path_factory):
    """A small finished sweep that nobody changes, with all loggers of the tests; where no test file has its own."""
    from offline import swept

    return swept(tmp_path_factory)
