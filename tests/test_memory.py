"""Freed memory is kept in the process, on a heap of large pages."""
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import resource, sys
import torch
from saesweep.runtime.memory import keep_freed_memory

def kilobytes(of):
    lines = open("/proc/self/smaps_rollup").read().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith(of))

if sys.argv[1] != "None":
    resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[1]),) * 2)
keep_freed_memory()
before = kilobytes("Rss")
tensors = [torch.ones(2**20) for _ in range(16)]
del tensors
print(kilobytes("Rss") - before, kilobytes("AnonHugePages"))
"""
ON_LINUX = pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="needs Linux")
PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")


@ON_LINUX
@pytest.mark.slow
@pytest.mark.parametrize("limit", [None, 2**35])
def test_freed_memory_is_kept_and_in_large_pages_unless_addresses_are_limited(limit):
    found = subprocess.run([sys.executable, "-c", SCRIPT, str(limit)], capture_output=True, text=True, check=True)
    kept, huge = map(int, found.stdout.split())
    assert kept > 60_000
    if limit is not None:
        assert huge == 0
    elif PAGES.exists() and "[never]" not in PAGES.read_text():
        assert huge > 30_000
