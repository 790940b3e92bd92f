"""A Slurm cluster of two nodes on loopback addresses, from Debian's packages slurm-wlm and munge; it needs root."""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

NODES = ("127.0.0.2", "127.0.0.3")  # addresses at which ranks can reach each other
PROGRAMS = ("sbatch", "slurmctld", "slurmd", "munged")
CONF = """
ClusterName=loopback
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
SlurmctldPort={port}
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.%n.log
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool.%n
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
KillWait=30
ReturnToService=2
SchedulerParameters=sched_interval=1
PartitionName=test Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def unavailable_reason() -> str | None:
    """Why a cluster cannot start on this machine; None if it can."""
    if missing := [program for program in PROGRAMS if shutil.which(program) is None]:
        return f"{', '.join(missing)} not found: apt-get install slurm-wlm munge"
    return None if os.geteuid() == 0 else "only root can start slurmd"


@contextmanager
def running(folder: Path) -> Iterator[dict[str, str]]:
    """Runs the cluster; yields the environment variables that its clients need."""
    for name in ("state", *(f"spool.{node}" for node in NODES)):
        (folder / name).mkdir()
    host = socket.gethostname().split(".")[0]
    conf, environment = folder / "slurm.conf", {"SLURM_CONF": str(folder / "slurm.conf")}
    nodes = [f"NodeName={n} NodeHostname={host} NodeAddr={n} Port={_free_port()} CPUs=2 State=UNKNOWN\n" for n in NODES]
    conf.write_text(CONF.format(folder=folder, host=host, port=_free_port()) + "".join(nodes))
    key = folder / "munge.key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o400)
    folder.chmod(0o755)
    files = {"socket": "munge.socket", "key-file": "munge.key", "log-file": "munged.log", "pid-file": "munged.pid"}
    munged = [f"--{option}={folder / name}" for option, name in {**files, "seed-file": "munged.seed"}.items()]
    try:
        for command in (["munged", "--force", *munged], ["slurmctld", "-c"], *(["slurmd", "-N", node] for node in NODES)):
            subprocess.run(command, env=os.environ | environment, check=True, capture_output=True)
        for _ in range(100):
            sinfo = subprocess.run(["sinfo", "-h", "-o", "%T"], env=os.environ | environment, capture_output=True, text=True)
            if sinfo.stdout.strip() == "idle":
                break
            time.sleep(0.2)
        else:
            raise AssertionError(f"no idle node: {sinfo}, {(folder / 'slurmctld.log').read_text()[-2000:]}")
        yield environment
    finally:
        for name in (*(f"slurmd.{node}.pid" for node in NODES), "slurmctld.pid", "munged.pid"):
            if (folder / name).is_file() and (pid := (folder / name).read_text().strip()):
                subprocess.run(["kill", pid])


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
