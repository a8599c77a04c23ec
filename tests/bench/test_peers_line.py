"""`python -m bench.peers`: which sides are chosen, and what is said when something is missing."""

import argparse
import asyncio
import subprocess
import sys

import pytest

from bench.mesh_processes import ROOT
from bench.peers.__main__ import command, compared, verdicts, wanted
from bench.peers.compare import NotMeasured, Sample
from bench.peers.kills import Verdict

NAMES = ["mesh worker", "raw aiokafka", "FastStream", "FastStream, 64 workers"]


@pytest.mark.parametrize(
    ("only", "found"),
    [
        ("", NAMES),
        ("faststream", NAMES[2:]),
        ("mesh, 64", [NAMES[0], NAMES[3]]),
        ("celery", []),
    ],
)
def test_sides_are_chosen_by_words_of_their_names(only: str, found: list[str]) -> None:
    assert wanted(NAMES, only) == found


async def test_a_kill_test_that_could_not_be_made_is_there_with_its_reason() -> None:
    async def good() -> Verdict:
        return Verdict(60, 2, 1, 0)

    async def bad() -> Verdict:
        raise NotMeasured("it did not start")

    assert await verdicts({"a": bad, "b": good}) == {
        "a": {"failed": "it did not start"},
        "b": {"messages": 60, "kills": 2, "lost": 1, "doubled": 0, "safe": False},
    }


@pytest.mark.parametrize(
    ("repeat", "kill", "done"), [(2, True, ["a", "a", "kill a"]), (0, True, ["kill a"]), (1, False, ["a"])]
)
async def test_rounds_come_first_then_the_kills_of_the_chosen_ones(repeat: int, kill: bool, done: list[str]) -> None:
    order: list[str] = []

    def side(name: str) -> Sample:
        order.append(name)
        return Sample(1.0, 1.0)

    def kills(name: str) -> Verdict:
        order.append(f"kill {name}")
        return Verdict(1, 1, 0, 0)

    options = argparse.Namespace(repeat=repeat, kill=kill, only="a")
    await compared(
        options,
        {name: lambda name=name: asyncio.to_thread(side, name) for name in ("a", "b")},  # type: ignore[misc]
        {name: lambda name=name: asyncio.to_thread(kills, name) for name in ("a", "b")},  # type: ignore[misc]
    )
    assert order == done


def test_hop_without_a_broker_says_how_to_get_one() -> None:
    words = [sys.executable, "-m", "bench.peers", "--workload", "hop"]
    found = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert found.returncode == 2
    assert "scripts/kafka start" in found.stderr


def test_the_command_that_is_kept_names_no_address() -> None:
    given = [
        "--workload",
        "run1",
        "--log",
        "kafka://10.1.2.3:9092",
        "--seconds",
        "3",
        "--to",
        "/somewhere",
        "--no-kill",
    ]
    assert command(given) == "python -m bench.peers --workload run1 --log kafka:… --repeat 5 --seconds 3 --no-kill"


async def test_all_are_killed_at_the_same_time() -> None:
    both = asyncio.Barrier(2)

    async def killed() -> Verdict:
        await both.wait()
        return Verdict(1, 1, 0, 0)

    assert list(await verdicts({"a": killed, "b": killed})) == ["a", "b"]
