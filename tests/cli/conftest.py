"""The real command in real processes: one mesh that runs for most tests, and ways to run, watch and end commands."""

import json
import os
import pty
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, NamedTuple, Self

import pytest

from tests.cli import fork_server

ROOT = Path(__file__).parents[2]
PROJECT = Path(__file__).parent / "project"
DEADLINE_S = 30
COMMAND = (sys.executable, "-m", "mesh")


class Done(NamedTuple):
    """A command that has ended."""

    code: int
    out: str
    err: str

    @property
    def rows(self) -> list[dict[str, Any]]:
        """stdout as JSON Lines."""
        return [json.loads(line) for line in self.out.splitlines()]


class Cli:
    """Runs `mesh` in a folder, with an environment that holds nothing of ours or yours."""

    def __init__(self, forker: socket.socket | None, folder: Path, home: Path) -> None:
        self.forker = forker
        self.folder = folder
        self.environ = {
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "LANG": "C.UTF-8",
            "PYTHONPATH": str(ROOT),
            "XDG_DATA_HOME": str(home / "data"),
            "XDG_CONFIG_HOME": str(home / "config"),
        }

    def at(self, folder: Path) -> "Cli":
        """The same in another folder."""
        return Cli(self.forker, folder, Path(self.environ["HOME"]))

    def __call__(self, *arguments: str, input: str | bytes = b"", env: dict[str, str] | None = None) -> Done:
        """Run to the end, in a process that need not import everything again (see `fork_server`), if there is one."""
        if self.forker is None:
            return self.fresh(*arguments, env=env)
        with TemporaryFile() as stdin, TemporaryFile() as stdout, TemporaryFile() as stderr:
            stdin.write(input.encode() if isinstance(input, str) else input)
            stdin.seek(0)
            environ = {**self.environ, **(env or {})}
            request = {"arguments": arguments, "folder": str(self.folder), "environ": environ, "deadline_s": DEADLINE_S}
            code = fork_server.ask(self.forker, request, (stdin.fileno(), stdout.fileno(), stderr.fileno()))
            stdout.seek(0)
            stderr.seek(0)
            return Done(code, stdout.read().decode(), stderr.read().decode())

    def fresh(self, *arguments: str, env: dict[str, str] | None = None) -> Done:
        """Run to the end in a Python of its own, as a shell would."""
        done = subprocess.run(
            [*COMMAND, *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            cwd=self.folder,
            env={**self.environ, **(env or {})},
            timeout=DEADLINE_S,
            check=False,
        )
        return Done(done.returncode, done.stdout.decode(), done.stderr.decode())

    def background(self, *arguments: str, env: dict[str, str] | None = None) -> "Background":
        """Start it and go on."""
        return Background([*COMMAND, *arguments], self.folder, {**self.environ, **(env or {})})

    @contextmanager
    def up(self, *arguments: str, env: dict[str, str] | None = None) -> Iterator["Background"]:
        """`mesh up`, ready inside the block; ended after it, whatever happened."""
        with self.background("up", "--json", *arguments, env=env) as running:
            running.ready = json.loads(running.out_until("\n"))
            yield running


class Background:
    """A command that runs: what it has written so far, and its end."""

    def __init__(self, command: list[str], folder: Path, environ: dict[str, str]) -> None:
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=folder,
            env=environ,
            start_new_session=True,
        )
        self._texts = {"out": "", "err": ""}
        self.ready: dict[str, Any] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(DEADLINE_S)
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            assert stream is not None
            stream.close()

    def out_until(self, text: str) -> str:
        """stdout so far, once `text` is in it."""
        return self._until("out", text)

    def err_until(self, text: str) -> str:
        """stderr so far, once `text` is in it."""
        return self._until("err", text)

    def write(self, text: str) -> None:
        """More for its standard input."""
        assert self.process.stdin is not None
        self.process.stdin.write(text.encode())
        self.process.stdin.flush()

    def close_input(self) -> None:
        """Close its standard input."""
        assert self.process.stdin is not None
        self.process.stdin.close()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to it alone."""
        self.process.send_signal(number)

    def end(self) -> Done:
        """Wait for its end."""
        self._until("", "")
        return Done(self.process.wait(DEADLINE_S), self._texts["out"], self._texts["err"])

    def _until(self, name: str, text: str) -> str:
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        streams = {self.process.stdout: "out", self.process.stderr: "err"}
        deadline = time.monotonic() + DEADLINE_S
        while not name or text not in self._texts[name]:
            left = deadline - time.monotonic()
            readable, _, _ = select.select(list(streams), [], [], max(0.0, left))
            if left <= 0:
                pytest.fail(f"{text!r} did not come; so far: {self._texts}")
            for stream in readable:
                chunk = os.read(stream.fileno(), 65_536).decode(errors="replace")
                self._texts[streams[stream]] += chunk
                if not chunk:
                    del streams[stream]
            if not streams:
                if name and text not in self._texts[name]:
                    pytest.fail(f"it ended without {text!r}: {self._texts}")
                break
        return self._texts.get(name, "")


class Terminal:
    """A command at a terminal of its own, `columns` wide."""

    def __init__(self, cli: Cli, *arguments: str, columns: int = 100, env: dict[str, str] | None = None) -> None:
        self._master, slave = pty.openpty()
        sizes = {"COLUMNS": str(columns), "LINES": "50", "TERM": "xterm-256color"}
        self.process = subprocess.Popen(
            [*COMMAND, *arguments],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            cwd=cli.folder,
            env={**cli.environ, **sizes, **(env or {})},
            start_new_session=True,
        )
        os.close(slave)
        self.text = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(DEADLINE_S)
        os.close(self._master)

    def press(self, *keys: str) -> None:
        """Type keys."""
        for key in keys:
            os.write(self._master, key.encode())

    def until(self, text: str) -> str:
        """All that was shown, once `text` is in it."""
        deadline = time.monotonic() + DEADLINE_S
        while text not in self.text:
            readable, _, _ = select.select([self._master], [], [], max(0.0, deadline - time.monotonic()))
            if not readable:
                pytest.fail(f"{text!r} did not come; so far: {self.text}")
            if not self._read():
                pytest.fail(f"it ended without {text!r}: {self.text}")
        return self.text

    def end(self) -> Done:
        """Wait for its end."""
        while self._read():
            pass
        return Done(self.process.wait(DEADLINE_S), self.text, "")

    def _read(self) -> bool:
        try:
            chunk = os.read(self._master, 65_536)
        except OSError:  # Linux answers EIO when no process has the other end open
            return False
        self.text += chunk.decode(errors="replace").replace("\r\n", "\n")
        return bool(chunk)


def plain(text: str) -> str:
    """Output with what differs between two runs replaced: ids, times, durations, ages, addresses, colours."""
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)
    text = re.sub(r"\b[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f-]{22}\b", "UUID", text)
    text = re.sub(r"\b\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\b", "DATE", text)
    text = re.sub(r"\b\d\d:\d\d:\d\d\.\d{3}\b", "CLOCK", text)
    text = re.sub(r" *\+?\b[\d.,]+ (ms|s|m|h)\b( ago| \d\d [sm])?", " TIME", text)
    text = re.sub(r"\b[0-9a-f]{24}\b", "RUN", text)
    return re.sub(r"\b(?=[a-f]*\d)[0-9a-f]{12}\b", "RUN", text)


def until(holds: Callable[[], object], *, deadline_s: float = DEADLINE_S) -> None:
    """Wait for a condition."""
    deadline = time.monotonic() + deadline_s
    while not holds():
        if time.monotonic() > deadline:
            pytest.fail("the condition did not come true")
        time.sleep(0.005)


@pytest.fixture(scope="session")
def forker() -> Iterator[socket.socket]:
    """The connection to the process that forks commands."""
    ours, theirs = socket.socketpair()
    with ours:
        ours.settimeout(2 * DEADLINE_S)
        with subprocess.Popen(
            [sys.executable, "-m", "tests.cli.fork_server", str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
        ):
            theirs.close()
            yield ours
            ours.close()


@pytest.fixture
def cli(forker: socket.socket, tmp_path: Path) -> Cli:
    """The command in an empty folder."""
    (tmp_path / "here").mkdir()
    return Cli(forker, tmp_path / "here", tmp_path)


@pytest.fixture
def project(forker: socket.socket, tmp_path: Path) -> Cli:
    """The command in a folder with topics.yaml and agents; no mesh has run there yet."""
    shutil.copytree(PROJECT, tmp_path / "desk", ignore=shutil.ignore_patterns("__pycache__"))
    return Cli(forker, tmp_path / "desk", tmp_path)


@pytest.fixture(scope="session")
def desk(forker: socket.socket, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cli]:
    """The command in a folder whose mesh is up. Shared by all tests: look, but do not rely on what is not there."""
    home = tmp_path_factory.mktemp("desk")
    shutil.copytree(PROJECT, home / "desk", ignore=shutil.ignore_patterns("__pycache__"))
    cli = Cli(forker, home / "desk", home)
    with cli.up():
        yield cli
