"""A function that ends its process, blocks or prints harms only its own answer in a replay."""

import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import Cli, until

FAULTY = """
import os
import time

from pathlib import Path

from desk import Greeted, GreetingKept, Hello


def answer(hello: Hello) -> list[Greeted | GreetingKept]:
    return [Greeted(text=f"good day, {hello.name}"), GreetingKept(name=hello.name)]


async def leave(hello: Hello) -> list[Greeted | GreetingKept]:
    if hello.name == "ada":
        os._exit(0)
    return answer(hello)


async def fall(hello: Hello) -> list[Greeted | GreetingKept]:
    if hello.name == "ada":
        os.kill(os.getpid(), 9)
    return answer(hello)


async def crash(hello: Hello) -> list[Greeted | GreetingKept]:
    if hello.name == "ada":
        os.kill(os.getpid(), 11)
    return answer(hello)


async def quit(hello: Hello) -> list[Greeted | GreetingKept]:
    if hello.name == "ada":
        raise SystemExit(0)
    return answer(hello)


async def block(hello: Hello) -> list[Greeted | GreetingKept]:
    Path("called").touch()
    time.sleep(100)
    return answer(hello)


async def talk(hello: Hello) -> list[Greeted | GreetingKept]:
    print("said by the function")
    return answer(hello)
"""


@pytest.fixture
def here(lived: Cli) -> Iterator[Cli]:
    """The folder of a mesh with faulty functions and a recording of each greeting."""
    module, recordings = lived.folder / "faulty.py", lived.folder / "kept"
    module.write_text(FAULTY)
    recordings.mkdir()
    for name in ("ada", "bob"):
        (recordings / f"{name}.jsonl").write_text(lived("run", "export", name).out)
    yield lived
    module.unlink()
    for file in (*recordings.iterdir(), lived.folder / "called"):
        file.unlink(missing_ok=True)
    recordings.rmdir()


@pytest.fixture
def swapped(here: Cli) -> Iterator[Callable[[str], int]]:
    """Let the topology name another function of the greeter."""
    file = here.folder / "topics.yaml"
    before = file.read_text()
    assert "desk:greet" in before
    yield lambda name: file.write_text(before.replace("desk:greet", f"faulty:{name}"))
    file.write_text(before)


@pytest.mark.parametrize(("name", "how"), [("leave", "exit code 0"), ("fall", "signal 9"), ("crash", "signal 11")])
def test_a_function_that_ends_its_process_is_a_difference(here: Cli, name: str, how: str) -> None:
    swap = ("--agent", f"greeter=faulty:{name}")
    tasks = here("replay", *swap)
    assert tasks.code == 1, tasks
    assert f"greeter ended its process: {how}" in tasks.out
    rows = here("replay", *swap, "--json").rows
    assert (rows[-1]["tasks"], rows[-1]["same"], rows[-1]["failed"]) == (2, 1, 1)
    run = here("replay", "ada", "--run", *swap, "--json")
    assert run.code == 1, run
    assert f"greeter ended its process: {how}" in run.out


def test_a_function_that_asks_to_exit_is_a_difference(here: Cli) -> None:
    tasks = here("replay", "--agent", "greeter=faulty:quit", "--json")
    assert (tasks.code, tasks.rows[-1]["same"], tasks.rows[-1]["failed"]) == (1, 1, 1), tasks
    assert here("replay", "ada", "--run", "--agent", "greeter=faulty:quit").code == 1


def test_the_other_recordings_are_taken_after_one_that_ends_the_process(
    here: Cli, swapped: Callable[[str], int]
) -> None:
    swapped("leave")
    done = here("test", "kept", "--json")
    assert done.code == 1, done
    assert [(row["recording"], row["same"]) for row in done.rows] == [
        (str(Path("kept", "ada.jsonl")), False),
        (str(Path("kept", "bob.jsonl")), True),
    ]
    assert "greeter ended its process: exit code 0" in str(done.rows[0]["differences"])


def test_a_run_whose_function_blocks_ends_at_its_timeout(here: Cli) -> None:
    done = here("replay", "ada", "--run", "--agent", "greeter=faulty:block", "--timeout", "500ms")
    assert done.code == 1, done


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("mode", [("ada", "--run"), ()])
def test_a_replay_whose_function_blocks_ends_at_a_signal(
    here: Cli, mode: tuple[str, ...], number: signal.Signals
) -> None:
    with here.background("replay", *mode, "--agent", "greeter=faulty:block") as running:
        until((here.folder / "called").exists)
        running.signal(number)
        assert running.end().code == 128 + number


@pytest.mark.parametrize("mode", [("ada", "--run"), ()])
def test_what_a_function_prints_goes_to_standard_error(here: Cli, mode: tuple[str, ...]) -> None:
    done = here("replay", *mode, "--agent", "greeter=faulty:talk", "--json")
    assert done.code == 0, done
    assert len(done.rows) == 1
    assert "said by the function" in done.err
