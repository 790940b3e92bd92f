"""The process that tests/warm.py forks: it has imported libraries, nothing of saesweep, and started no thread of torch.

    python tests/warm_server.py SOCKET      the number of an open socket that listens; ends with its standard input

Each connection is a tests/warm_python.py: it gets the process id of its program and, at the end, the status of that.
"""
import atexit
import gc
import json
import os
import runpy
import select
import signal
import socket
import sys
import threading
import traceback
import weakref
from contextlib import suppress

from warm_imports import import_libraries

OVERRIDES = ["a=b,c", "a=1,2.5", "+a.b_c={x: 1, y: [2, 3.5, null, true, 'a b']}", "~k", "k=range(1,4)", "a=/t/x.y-z", "t=1_000",
             "u=[csv,wandb]", "x@y.z=w", "a/b=c", "h=2e-3", "a=", "a=b-c_d/e:f", "s=${oc.env:HOME}"]
INTERPOLATIONS = {"a": "x", "b": "y/${a}.${oc.select:a,null}", "c": "${oc.env:HOME}/z", "d": {"e": "${..a}", "f": "${d.e}"}}


def wanted(listener: socket.socket) -> bool:
    """Wait for a program; false where there will be none."""
    return sys.stdin not in select.select([listener, sys.stdin], [], [])[0]


def serve(listener: socket.socket) -> socket.socket:
    """Returns in the process of each program, with the connection. That process is kept by one of its own."""
    while wanted(listener):
        connection = listener.accept()[0]
        if os.fork() == 0:
            listener.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            if (program := os.fork()) == 0:
                return connection
            keep(program, connection)
        connection.close()
    atexit._run_exitfuncs()
    os._exit(0)


def keep(program: int, connection: socket.socket) -> None:
    """Kill it where the connection ends first: with its session, if it has one of its own."""
    poll = select.poll()
    poll.register(connection, select.POLLRDHUP)
    poll.register(os.pidfd_open(program), select.POLLIN)
    with suppress(OSError):  # the other end is gone
        connection.sendall(b"%d\n" % program)
    if connection.fileno() in dict(poll.poll()):
        with suppress(ProcessLookupError):
            os.killpg(program, signal.SIGKILL) if os.getpgid(program) == program else os.kill(program, signal.SIGKILL)
    status = os.waitpid(program, 0)[1]
    with suppress(OSError):
        connection.sendall(b"%d\n" % status)
    os._exit(0)


def become(connection: socket.socket) -> list[str]:
    """Take over what the request has; the words of the program."""
    received, files, *_ = socket.recv_fds(connection, 1 << 20, 3)
    while not received.endswith(b"\n"):
        received += connection.recv(1 << 20)
    connection.close()
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    request = json.loads(received)
    if request["own_session"]:
        os.setsid()
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.stdout.reconfigure(line_buffering=sys.stdout.isatty(), write_through=request["unbuffered"])
    sys.executable = WARM_PYTHON
    sys.path[:0] = filter(None, os.environ.get("PYTHONPATH", "").split(":"))
    set_threads()
    leave_folders()
    if not os.environ.get("WARM_FIGURES"):
        draw_nothing()
    return request["words"]


def set_threads() -> None:
    """As the environment asks for; the libraries have read another one."""
    import numba
    import torch

    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", 0)) or len(os.sched_getaffinity(0)))
    numba.config.reload_config()


def draw_nothing() -> None:
    """The figures of reports are empty files."""
    from matplotlib.figure import Figure

    Figure.savefig = lambda *_, **__: None


def leave_folders() -> None:
    """W&B makes temporary folders when it is imported: all programs share those of the server, which removes them."""
    from wandb.sdk.data_types._private import MEDIA_TMP

    for removal in list(weakref.finalize._registry):
        removal.detach()
    atexit.unregister(MEDIA_TMP.cleanup)


def run(words: list[str]) -> None:
    if words[0] == "-m":
        sys.path.insert(0, os.getcwd())
        sys.argv[:] = words[1:]
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    else:
        sys.path.insert(0, os.path.dirname(os.path.abspath(words[0])))
        sys.argv[:] = words
        runpy.run_path(words[0], run_name="__main__")


def prepare() -> None:
    """What libraries do when they are first used, and keep: numba compiles or loads a loop, Hydra parses YAML and overrides."""
    import numba
    import yaml_once
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from omegaconf import OmegaConf

    numba.njit(lambda: None)()
    yaml_once.load_all()
    OverridesParser.create().parse_overrides(OVERRIDES)
    OmegaConf.to_container(OmegaConf.create(INTERPOLATIONS), resolve=True)


def code_of(words: list[str]) -> int:
    """Run the program; its exit code."""
    try:
        run(words)
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            return int(end.code or 0)
        print(end.code, file=sys.stderr)
        return 1
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


WARM_PYTHON = os.path.join(sys.path.pop(0), "warm_python.py")
signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # no zombies
with socket.socket(fileno=int(sys.argv[1])) as listener:
    if not wanted(listener):
        sys.exit()
    import_libraries()
    prepare()
    gc.collect()
    gc.freeze()  # what a fork does not touch is not copied
    connection = serve(listener)
code = code_of(become(connection))
threading._shutdown()
atexit._run_exitfuncs()
sys.stdout.flush()
os._exit(code)  # freeing all that was imported takes half a second
