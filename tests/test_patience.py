"""A rank that waits too long for another says so."""
import os
import socket
import sys
import time
from datetime import timedelta
from pathlib import Path

import pytest
import warm
from standin.cli import ENV

from saesweep.runtime import distributed


def on_a_rank(folder: Path) -> None:
    """Rank 0 gathers twice; rank 1 joins it once and then does something else."""
    distributed.PATIENCE = timedelta(seconds=5)
    distributed.begin("cpu", ranks_share_saes=True)
    first = distributed.all_gather(os.environ["RANK"])
    try:
        while distributed.rank() == 1 and not (folder / "told").exists():
            time.sleep(0.1)
        if distributed.rank() == 0:
            distributed.all_gather(first)
    except distributed.RanksTimedOut as error:
        (folder / "told").write_text(f"{first} {error}")
    os._exit(0)  # as the ranks of a sweep that fails


@pytest.mark.slow
@pytest.mark.process
def test_a_rank_that_waits_for_longer_than_its_patience_names_the_limit(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    meet = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2"}
    start = [sys.executable, __file__, str(tmp_path)]
    ranks = [warm.popen(start, tmp_path, ENV | meet | {"RANK": str(rank)}) for rank in (0, 1)]
    assert [rank.wait() for rank in ranks] == [0, 0]
    assert (tmp_path / "told").read_text() == (
        "['0', '1'] rank 0 has waited 0:00:05 for the others in all_gather: one of them hangs, or works alone for longer than "
        "PATIENCE in saesweep/runtime/distributed.py")


if __name__ == "__main__":
    on_a_rank(Path(sys.argv[1]))
