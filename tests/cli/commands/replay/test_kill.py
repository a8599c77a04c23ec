"""`kill -9` of a replay in each mode, at several moments: it leaves a temporary folder at most, and nothing else."""

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path

import pytest

from tests.cli.conftest import Background, Cli, until

SLOW = """
import asyncio
import time
from pathlib import Path

from desk import Greeted, GreetingKept, Hello


async def greet(hello: Hello) -> list[Greeted | GreetingKept]:
    Path("called").touch()
    await asyncio.sleep(60)
    return []


def hard(hello: Hello) -> list[Greeted | GreetingKept]:
    Path("called").touch()
    time.sleep(60)
    return []
"""
SWAPPED = ("--agent", "greeter=slow:greet")
INDEX = "mesh.db.runs"


@pytest.fixture
def here(troubled: Cli, tmp_path: Path) -> Cli:
    """A copy of the folder, with a function that never ends and a recording."""
    ignored = shutil.ignore_patterns("*.wake", "__pycache__", f"{INDEX}*")
    shutil.copytree(troubled.folder, tmp_path / "desk", ignore=ignored)
    (tmp_path / "desk" / "slow.py").write_text(SLOW)
    (tmp_path / "desk" / "kept.jsonl").write_text(troubled("run", "export", "ada").out)
    (tmp_path / "tmp").mkdir()
    return troubled.at(tmp_path / "desk")


def content(folder: Path) -> dict[str, bytes]:
    """The files of a folder, without the index of runs and what Python compiled."""
    return {
        str(path.relative_to(folder)): blake2b(path.read_bytes()).digest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts and not path.name.startswith(INDEX)
    }


def opened(process: int) -> Iterator[str]:
    """Names of the files that a process has open."""
    with suppress(FileNotFoundError, PermissionError):  # it has ended
        for number in os.listdir(f"/proc/{process}/fd"):
            with suppress(FileNotFoundError):  # closed meanwhile
                yield Path(os.readlink(f"/proc/{process}/fd/{number}")).name


def has_open(name: str) -> Callable[[Background, Cli], bool]:
    return lambda running, cli: name in opened(running.process.pid) or running.process.poll() is not None


def was_called(running: Background, cli: Cli) -> bool:
    return (cli.folder / "called").exists()


def has_folder(running: Background, cli: Cli) -> bool:
    return any((cli.folder.parent / "tmp").iterdir()) or running.process.poll() is not None


def at_once(running: Background, cli: Cli) -> bool:
    return True


@pytest.mark.parametrize(
    ("arguments", "moment"),
    [
        (("replay", "ada"), at_once),
        (("replay", "ada"), has_open("mesh.db")),
        (("replay", "broken", "--step"), has_open(INDEX)),
        (("replay", "--check"), has_open("mesh.db")),
        (("replay", "ada", "--limit", "depth_max=1"), has_open(INDEX)),
        (("replay", "--since", "1h", "--limit", "depth_max=1"), has_open("mesh.db")),
        (("replay", "ada", "--run", "--repeat", "1000"), has_folder),
        (("replay", "ada", "--run", *SWAPPED, "--save", "new.jsonl"), was_called),
        (("replay", *SWAPPED, "--jobs", "2", "--save", "new.jsonl"), was_called),
        (("test", "kept.jsonl"), has_folder),
        (("run", "export", "--since", "1h"), has_open("mesh.db")),
    ],
)
def test_it_leaves_nothing_but_a_temporary_folder(
    here: Cli, arguments: tuple[str, ...], moment: Callable[[Background, Cli], bool]
) -> None:
    before, temporary = content(here.folder), here.folder.parent / "tmp"
    with here.background(*arguments, env={"TMPDIR": str(temporary)}) as running:
        until(lambda: moment(running, here))
        running.signal(signal.SIGKILL)
        running.end()
        with pytest.raises(ProcessLookupError):
            os.killpg(running.process.pid, 0)
    left = {name: digest for name, digest in content(here.folder).items() if not name.startswith("mesh-replay-")}
    left.pop("called", None)
    assert left == before
    assert all(path.name.startswith("mesh-replay-") for path in temporary.iterdir())
    (row,) = (row for row in here("run", "list", "--json").rows if row["subject"] == "ada")
    assert row["state"] == "completed"
    assert here("replay", "ada").out.startswith("✓ ada  hello  completed")


def test_an_export_that_was_killed_is_cut_and_every_command_says_so(here: Cli) -> None:
    with here.background("run", "export", "large") as running:  # larger than a pipe, so it waits for its reader
        assert running.process.stdout is not None
        written = os.read(running.process.stdout.fileno(), 65_536)
        running.signal(signal.SIGKILL)
        written += running.end().out.encode()
    (here.folder / "cut.jsonl").write_bytes(written)
    assert "it is cut: it ends within line" in here("replay", "cut.jsonl").err
    done = here("test", "cut.jsonl")
    assert (done.code, "the recording is cut" in done.err) == (2, True)


@pytest.mark.parametrize(("function", "number"), [("greet", signal.SIGTERM), ("hard", signal.SIGINT)])
@pytest.mark.parametrize("mode", [("ada", "--run"), ("--jobs", "2", "--save", "new.jsonl")])
def test_ctrl_c_waits_for_no_function_and_leaves_nothing(
    here: Cli, mode: tuple[str, ...], function: str, number: signal.Signals
) -> None:
    before, temporary = content(here.folder), here.folder.parent / "tmp"
    arguments = ("replay", *mode, "--agent", f"greeter=slow:{function}")
    with here.background(*arguments, env={"TMPDIR": str(temporary)}) as running:
        until(lambda: was_called(running, here))
        running.signal(number)
        done = running.end()  # before the function would return
    assert (done.code, done.out) == (130 if number == signal.SIGINT else 143, "")
    assert "Traceback" not in done.err
    assert list(temporary.iterdir()) == []
    (here.folder / "called").unlink()
    assert content(here.folder) == before
