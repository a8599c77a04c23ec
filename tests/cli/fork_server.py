"""A process that has imported the command line once and forks a child for every command.

Each command is a process of its own, with its own folder, environment, files and exit code, but does not import again.
The imports of two hundred commands would take a minute and a half. The argument is the number of a socket. Each request
(arguments, folder, environment and three open files) is answered with the exit code.
"""

import json
import os
import signal
import socket
import struct
import sys
from typing import Any

HEAD = struct.Struct("!I")


def ask(connection: socket.socket, request: dict[str, Any], files: tuple[int, int, int]) -> int:
    """The caller's side: run one command and answer its exit code, negative for a signal."""
    body = json.dumps(request).encode()
    socket.send_fds(connection, [HEAD.pack(len(body))], files)
    connection.sendall(body)
    return int(struct.unpack("!i", _exactly(connection, 4))[0])


def serve(connection: socket.socket) -> None:
    """Until the caller has gone."""
    while True:
        head, files, _, _ = socket.recv_fds(connection, HEAD.size, 3)
        if not head:
            return
        request = json.loads(_exactly(connection, HEAD.unpack(head)[0]))
        pid = os.fork()
        if pid == 0:
            connection.close()
            os._exit(_run(request, files))
        for file in files:
            os.close(file)
        connection.sendall(struct.pack("!i", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])))


def _run(request: dict[str, Any], files: list[int]) -> int:
    from mesh.cli.app import execute

    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    os.setsid()
    signal.alarm(request["deadline_s"])  # it ends by itself: whoever asked must get an answer
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environ"])
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115  # lives as long as the process
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115  # lives as long as the process
    sys.stderr = open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115  # lives as long as the process
    code = execute(request["arguments"])
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except BrokenPipeError:
        return 141
    return code


def _exactly(connection: socket.socket, size: int) -> bytes:
    found = b""
    while len(found) < size:
        chunk = connection.recv(size - len(found))
        if not chunk:
            raise ConnectionError("the other end has gone")
        found += chunk
    return found


if __name__ == "__main__":
    import importlib

    from mesh.cli.app import COMMANDS

    for place in COMMANDS.values():
        importlib.import_module(f"mesh.cli.commands.{place.partition(':')[0]}")
    for name in (
        "mesh.client",
        "mesh.app.process",
        "mesh.settings",
        "mesh.adapters.sqlite",
        "mesh.adapters.redis.board",
        "mesh.app.wiring",
    ):
        importlib.import_module(name)
    serve(socket.socket(fileno=int(sys.argv[1])))
