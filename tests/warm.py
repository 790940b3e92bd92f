"""The real command line in a process of its own that starts soon: a fork of one that has imported the libraries already.

Folder, environment, arguments, files, signals and exit status are those of `subprocess`. What the program starts by
`sys.executable`, such as its ranks, is a fork of the same process (tests/warm_python.py, tests/warm_server.py). The figures
of its reports are empty files unless they are asked for: they take a third of the time of a small sweep.

Not for tests of imports, and of variables that libraries read when they are imported. After `kill`,
`communicate` waits for the program's end, `wait` may return a moment before.
"""
import atexit
import os
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
SERVER = ("WARM_SOCKET", "WARM_PYTHON")  # in the environment of its clients
WORKER = shlex.join([str(HERE / "warm_python.py"), str(HERE / "warm_worker.py")])  # the Python of pytest-xdist's workers


def popen(
    words: Sequence[str], cwd: Path, env: Mapping[str, str], *, figures: bool = False, **options: Any
) -> subprocess.Popen[str]:
    """`words`: as for subprocess; with python and a script, or -m and a module, first."""
    known = {name: os.environ[name] for name in SERVER} | {"WARM_FIGURES": "drawn" if figures else ""}
    return subprocess.Popen([HERE / "warm_python.py", *words[1:]], cwd=cwd, env={**env, **known}, text=True, **options)


def run(
    words: Sequence[str], cwd: Path, env: Mapping[str, str], *, figures: bool = False
) -> subprocess.CompletedProcess[str]:
    with popen(words, cwd, env, figures=figures, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        out, err = process.communicate()
    return subprocess.CompletedProcess(words, process.returncode, out, err)


def ready() -> None:
    """Wait until the imports are done: for who times what comes then."""
    run([sys.executable, "-m", "this"], HERE, os.environ)


def start() -> None:
    """Starts the server of this process and all workers, which imports when the first program is asked for.

    It ends with this process; its clients find it by the environment. A pytest that is such a program has its server there.
    """
    if SERVER[0] in os.environ:
        return
    folder = tempfile.mkdtemp()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{folder}/socket")
        listener.listen(100)
        server = subprocess.Popen(
            [sys.executable, str(HERE / "warm_server.py"), str(listener.fileno())], pass_fds=[listener.fileno()],
            env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": ""}, stdin=subprocess.PIPE, start_new_session=True,
        )
    atexit.register(shutil.rmtree, folder)
    atexit.register(server.communicate)
    os.environ.update(zip(SERVER, (f"{folder}/socket", sys.executable), strict=True), WARM_FIGURES="drawn")  # by the workers
