#!/usr/bin/env -S python3 -IS
"""The `sys.executable` of warm programs: has the fork server of tests/warm.py do what Python is asked to do here.

It hands over its words, environment, folder and standard files, passes on the signals that it gets, and ends as the fork
ends; where it is killed, the server kills the fork. What is neither a script nor a module is left to Python itself.
"""
import json
import os
import signal
import socket
import sys

PASSED_ON = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


def main(words: list[str]) -> None:
    unbuffered = words[0] == "-u"
    words = words[unbuffered:]
    if words[0].startswith("-") and words[0] != "-m":
        os.execv(os.environ["WARM_PYTHON"], [os.environ["WARM_PYTHON"], *sys.argv[1:]])
    request = {
        "words": words, "unbuffered": unbuffered, "folder": os.getcwd(), "environment": dict(os.environ),
        "own_session": os.getsid(0) == os.getpid(),
    }
    with socket.socket(socket.AF_UNIX) as server, server.makefile() as answers:
        server.connect(os.environ["WARM_SOCKET"])
        socket.send_fds(server, [json.dumps(request).encode() + b"\n"], [0, 1, 2])
        fork = int(answers.readline())
        for number in PASSED_ON:
            signal.signal(number, lambda number, _: os.kill(fork, number))
        status = int(answers.readline())
    if os.WIFEXITED(status):
        os._exit(os.WEXITSTATUS(status))
    if os.WTERMSIG(status) != signal.SIGKILL:
        signal.signal(os.WTERMSIG(status), signal.SIG_DFL)
    os.kill(os.getpid(), os.WTERMSIG(status))


main(sys.argv[1:])
