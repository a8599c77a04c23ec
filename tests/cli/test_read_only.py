"""Every command that reads, by a user who may only read the embedded file: not a byte of its folder changes."""

import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import DEADLINE_S, PROJECT, ROOT, Background, Cli
from tests.read_only import bound_by_modes, read_only, reading_commands, stamps


@pytest.fixture(scope="module")
def bound_forker() -> Iterator[socket.socket]:
    """As `forker`, but the modes of files bind its commands, also those of root."""
    ours, theirs = socket.socketpair()
    with ours:
        ours.settimeout(2 * DEADLINE_S)
        command = [sys.executable, "-m", "tests.cli.fork_server", str(theirs.fileno())]
        with subprocess.Popen(
            command,
            pass_fds=[theirs.fileno()],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            preexec_fn=bound_by_modes,
        ):
            theirs.close()
            yield ours
            ours.close()


@pytest.fixture
def reader(bound_forker: socket.socket, tmp_path: Path) -> Cli:
    """The command in the folder of a mesh whose log lies in a folder of its own."""
    shutil.copytree(PROJECT, tmp_path / "desk", ignore=shutil.ignore_patterns("__pycache__"))
    cli = Cli(bound_forker, tmp_path / "desk", tmp_path)
    cli.environ["MESH_LOG"] = f"sqlite:{tmp_path / 'log' / 'mesh.db'}"
    (tmp_path / "log").mkdir()
    return cli


def publish(cli: Cli) -> None:
    for name in ("ada", "bob"):
        assert cli("publish", "hello", f'{{"name": "{name}"}}', "--wait").code == 0
    assert cli("publish", "break.me", "{}", "--wait").code == 1


def rest(running: Background, folder: Path) -> None:
    """The mesh has ended: the file alone is left."""
    running.signal(signal.SIGINT)
    running.end()
    assert {path.name for path in folder.iterdir()} & {"mesh.db-wal", "mesh.db-shm"} == set()


def kill(running: Background, folder: Path) -> None:
    """The mesh was killed: file, WAL and its index are left."""
    running.signal(signal.SIGKILL)
    running.end()
    assert {path.name for path in folder.iterdir()} >= {"mesh.db", "mesh.db-wal", "mesh.db-shm"}


def freeze(running: Background, folder: Path) -> None:
    """The mesh is up, and stands still: whatever changes now was changed by a reader."""
    running.signal(signal.SIGSTOP)
    assert (folder / "mesh.db-wal").exists()


@pytest.mark.parametrize("state", [rest, kill, freeze])
@pytest.mark.parametrize("owner", [False, True], ids=["may only read", "may write"])
def test_no_command_that_reads_changes_a_byte_of_the_log(
    reader: Cli, tmp_path: Path, state: Callable[[Background, Path], None], owner: bool
) -> None:
    folder = tmp_path / "log"
    with reader.up() as running:
        publish(reader)
        state(running, folder)
        if owner:
            reader.environ["MESH_RUN_INDEX"] = str(tmp_path / "runs")
            changed = list(read_everything(reader, folder))
        else:
            with read_only(folder):
                assert reader("publish", "hello", '{"name": "eve"}').code != 0
                changed = list(read_everything(reader, folder))
        running.signal(signal.SIGCONT)
    assert changed == []


def read_everything(reader: Cli, folder: Path) -> Iterator[str]:
    """Run all commands; yield those that changed something."""
    before = stamps(folder)
    for words in reading_commands("ada", "greeter", "name=zoe", reader.folder):
        done = reader(*words)
        assert done.code in (0, 1), (words, done)
        assert done.out, (words, done)
        assert "error" not in done.err, (words, done)
        if (after := stamps(folder)) != before:
            changed = [name for name in before.keys() | after.keys() if before.get(name) != after.get(name)]
            yield f"{words}: {sorted(changed)}"
            before = after
