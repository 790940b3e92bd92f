"""The GPU's kernels, compiled for the GPUs of benchmarks/gpu/devices.yaml without one."""
import re
import sys

import pytest
import warm
from benchmarks.gpu import kernels
from benchmarks.gpu.sizes import CAPABILITIES, ROOT
from mock_gpu import REAL

pytest.importorskip("triton", reason="the GPU's kernels need triton: pip install triton")
pytestmark = [pytest.mark.slow, pytest.mark.process, pytest.mark.kernels]


@pytest.fixture(scope="module")
def launches():
    """By a warm program, except where the Triton of those is not its interpreter."""
    with pytest.MonkeyPatch.context() as patch:
        if not REAL:
            patch.setattr(sys, "executable", str(warm.HERE / "warm_python.py"))
        return kernels.recorded([640, 2304, 3584])


def test_every_kernel_that_the_operations_launch_is_recorded(launches):
    sources = "".join(file.read_text() for file in sorted((ROOT / "src/saesweep/arch/ops").rglob("*.py")))
    assert {launch["kernel"] for launch in launches} == set(re.findall(r"(_\w+)\[\(", sources))


@pytest.fixture(scope="module")
def usage(launches):
    return kernels.usage(launches, CAPABILITIES)


@pytest.mark.parametrize("capability", CAPABILITIES)
def test_no_kernel_spills_many_registers_or_takes_more_shared_memory_than_there_is(launches, usage, capability):
    assert len(usage[capability]) == len(launches)
    for found in usage[capability]:
        assert 0 < found["registers"] < 256 and found["spilled"] <= 16, found
        assert found["shared"] <= CAPABILITIES[capability]["shared"], found
