"""The kill switch on the embedded log with two worker processes: how soon it is felt, and that nothing is lost."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import Background, Cli, until

WITHIN_S = 1.0
TASKS = 600
TOPICS = """
mesh: {name: t, prefix: mesh, inbox: {partitions: 4}, limits: {deadline: 120s}}
topics:
  asks: {ingress: ask, id: id, partitions: 4}
  naps: {ingress: nap, id: id, partitions: 4}
  answers: {egress: answer, partitions: 4}
agents:
  ticker: {run: "desk:tick", on: ask, emits: answer, timeout: 20s, lanes: 4}
  napper: {run: "desk:nap", on: nap, emits: answer, timeout: 60s, retry: {attempts: 1}}
"""
AGENTS = """
import asyncio, os, pathlib, time
from mesh import Context, Emit

def note(name, *facts):
    with open(name, "a") as file:
        file.write(" ".join(map(str, facts)) + "\\n")

async def tick(ask: dict, context: Context) -> Emit:
    note("ticks", os.getpid(), time.time(), context.attempt)
    await asyncio.sleep(0.02)
    return Emit("answer", {"id": ask["id"]})

async def nap(nap: dict, context: Context) -> Emit:
    note("naps", os.getpid(), "began", time.time(), context.attempt)
    try:
        if not pathlib.Path("awake").exists():
            await asyncio.sleep(50)
    except asyncio.CancelledError:
        note("naps", os.getpid(), "broken off", time.time(), context.attempt)
        raise
    return Emit("answer", {"id": nap["id"]})
"""


class Ticks:
    """The notes that the agents wrote."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def lines(self, name: str) -> list[list[str]]:
        """Facts by line."""
        file = self._folder / name
        return [line.split() for line in file.read_text().splitlines()] if file.exists() else []

    @property
    def count(self) -> int:
        """Tasks begun."""
        return len(self.lines("ticks"))

    @property
    def last_s(self) -> float:
        """When the last one was begun."""
        return float(self.lines("ticks")[-1][1])

    def quiet(self) -> bool:
        """Whether nothing was begun for longer than it takes to begin many."""
        return time.time() - self.last_s > WITHIN_S


@pytest.fixture
def workers(cli: Cli) -> Iterator[list[Background]]:
    """An orchestrator and two worker processes."""
    (cli.folder / "topics.yaml").write_text(TOPICS)
    (cli.folder / "desk.py").write_text(AGENTS)
    with cli.up("orchestrator", "intake"), cli.up("worker") as first, cli.up("worker") as second:
        yield [first, second]


def publish(cli: Cli, type: str, count: int) -> None:
    """So many requests."""
    done = cli("publish", type, "-", input="".join(f'{{"id": "{type}-{n}"}}\n' for n in range(count)))
    assert done.code == 0, done.err


def state_of(cli: Cli, name: str) -> str:
    return str(cli("run", "show", name, "--json").rows[0]["state"])


@pytest.mark.parametrize("what", [("agent", "ticker"), ("all",)], ids=["one agent", "all"])
def test_a_stop_is_felt_in_every_process_within_a_second_and_a_resume_too(
    cli: Cli, workers: list[Background], what: tuple[str, ...]
) -> None:
    ticks = Ticks(cli.folder)
    publish(cli, "ask", TASKS)
    until(lambda: len({line[0] for line in ticks.lines("ticks")}) == 2)
    stopped_s = time.time()
    assert cli("stop", *what).code == 0
    until(ticks.quiet)
    felt_s = ticks.last_s - stopped_s
    begun = ticks.count
    assert felt_s < WITHIN_S, f"something was begun {felt_s:.3f} s after the stop"
    assert begun < TASKS, "there was more to do"
    resumed_s = time.time()
    assert cli("resume", *what).code == 0
    until(lambda: ticks.count > begun)
    went_on_s = float(ticks.lines("ticks")[begun][1]) - resumed_s
    assert went_on_s < WITHIN_S, f"nothing was begun for {went_on_s:.3f} s after the resume"
    print(f"felt {felt_s * 1_000:.0f} ms after the command began, resumed after {went_on_s * 1_000:.0f} ms")
    until(lambda: not cli("run", "list", "--state", "open", "--json").rows)
    assert len(cli("run", "list", "--state", "completed", "--limit", "2000", "--json").rows) == TASKS
    assert {line[2] for line in ticks.lines("ticks")} == {"1"}, "a stop costs no attempt"


def test_what_runs_is_broken_off_kept_and_done_after_the_resume_without_an_attempt_lost(
    cli: Cli, workers: list[Background]
) -> None:
    ticks = Ticks(cli.folder)
    publish(cli, "nap", 1)
    until(lambda: bool(ticks.lines("naps")))
    stopped_s = time.time()
    cli("stop", "agent", "napper", "--why", "too lazy")
    until(lambda: len(ticks.lines("naps")) == 2)
    assert ticks.lines("naps")[1][1:3] == ["broken", "off"]
    assert float(ticks.lines("naps")[1][3]) - stopped_s < WITHIN_S
    assert state_of(cli, "nap-0") == "open"
    publish(cli, "ask", 1)
    until(lambda: state_of(cli, "ask-0") == "completed")  # others go on
    (cli.folder / "awake").touch()
    cli("resume", "agent", "napper")
    until(lambda: state_of(cli, "nap-0") == "completed")
    assert [line[-1] for line in ticks.lines("naps")] == ["1", "1", "1"]


def test_a_worker_that_starts_while_its_agent_is_stopped_begins_nothing(cli: Cli) -> None:
    (cli.folder / "topics.yaml").write_text(TOPICS)
    (cli.folder / "desk.py").write_text(AGENTS)
    ticks = Ticks(cli.folder)
    assert cli("topics", "create").code == 0
    assert cli("stop", "agent", "ticker").code == 0
    with cli.up():
        publish(cli, "ask", 3)
        publish(cli, "nap", 1)
        until(lambda: bool(ticks.lines("naps")))
        assert ticks.count == 0
        assert cli("resume", "agent", "ticker").code == 0
        until(lambda: ticks.count == 3)


def test_a_worker_that_is_asked_to_end_while_its_agent_is_stopped_ends(cli: Cli) -> None:
    (cli.folder / "topics.yaml").write_text(TOPICS)
    (cli.folder / "desk.py").write_text(AGENTS)
    with cli.up() as running:
        publish(cli, "nap", 1)
        until(lambda: bool(Ticks(cli.folder).lines("naps")))
        cli("stop", "all")
        until(lambda: len(Ticks(cli.folder).lines("naps")) == 2)
        publish(cli, "ask", 20)
        began = time.monotonic()
        os.kill(running.process.pid, 15)
        assert running.end().code == 143
        assert time.monotonic() - began < 10
    (cli.folder / "awake").touch()
    assert cli("resume", "--yes").code == 0
    with cli.up():
        until(lambda: not cli("run", "list", "--state", "open", "--json").rows)
