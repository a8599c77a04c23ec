"""Every number of `mesh windows --json`, computed by hand for a log whose records the mesh decided.

Each run is decided by the partition's own fold and answered as workers answer; only the clock is ours. What a decision
publishes is stored 50 ms after the event. Milliseconds from the begin of the window:

run       events
shipped   0 asked · 1,050 plan, waited 200 · 2,100 ship timed out · 2,950 hand, its fallback
broken    200 asked · 750 plan failed · 1,250 its retry is due · 1,500 plan · 1,700 ship failed · 2,000 hand failed
          (dead letter)
stopped   300 asked · 400 paused · 500 resumed · 600 cancelled; its task has no answer
rounds    100 asked · 650 runner, whose loop is refused
deep      5,000 asked · 5,150 and 5,350 digger, whose third hop is refused
plain     20,000 asked · 20,150 plan · 20,300 ship
"""

import asyncio
from pathlib import Path
from typing import Final

import pytest

from mesh.adapters.clock import SystemClock
from mesh.adapters.ports import Appended
from mesh.adapters.sqlite import SqliteLog
from mesh.app.wiring import load_topology, topic_specs
from mesh.core.metrics.definitions import DEFINITIONS
from mesh.core.metrics.histogram import RELATIVE_ERROR
from mesh.core.metrics.measurements import DRIFT_UNIT
from mesh.core.protocol.codec import read_event
from mesh.core.protocol.event import CANCELLED, NO_USAGE, PAUSED, REQUESTED, RESUMED, Event, Fault, Part, Usage
from mesh.core.protocol.record import NewRecord, StoredRecord
from mesh.core.publishing.effect_records import due_record, inbox_record, record_of
from mesh.core.run.control import command_record
from mesh.core.run.effects import DeadLetter, Finish, Note, PublishEvent, PublishTask, Schedule
from mesh.core.state.partition_state import Partition
from mesh.core.task.result import failure_event, success_event
from tests.cli.conftest import Cli

TOPOLOGY: Final = """
mesh: {name: hand, inbox: {partitions: 1}, limits: {depth_max: 2, deadline: 60s}}
topics:
  asks: {ingress: ask}
  rounds: {ingress: round.go}
  digs: {ingress: dig}
  shipments: {egress: shipped}
agents:
  plan: {run: "desk:plan", on: ask, emits: planned, retry: {attempts: 2, first: 500ms, jitter: 0}}
  ship: {run: "desk:ship", on: planned, emits: shipped, fallback: hand, retry: {attempts: 1}}
  hand: {run: "desk:hand", emits: shipped, retry: {attempts: 1}}
  runner: {run: "desk:run", on: round.go, emits: round.go, visits_max: 1, retry: {attempts: 1}}
  digger: {run: "desk:dig", on: dig, emits: dig, visits_max: 9, retry: {attempts: 1}}
"""
BEGIN_MS: Final = 1_796_040_000_000
"""Start of a window of one minute."""
DECISION_MS: Final = 50
BY_HAND: Final = {
    "rate_in": 6 / 60,
    "rate": 12 / 60,  # shipped 3, broken 4, rounds 1, deep 2, plain 2
    "rate_out": 8 / 60,  # plan 3 times, ship 1, hand 1, runner 1, digger 2; of failures nothing
    "error_rate": 4 / 12,  # broken: plan, ship, hand; shipped: ship
    "retry_rate": 1 / 12,  # broken: plan
    "timeout_rate": 1 / 12,  # shipped: ship
    "fallback_rate": 2 / 12,  # shipped and broken: hand
    "completion_rate": 2 / 6,  # shipped, plain; not broken (failed), stopped (cancelled), rounds and deep (stopped)
    "cycle_rate": 1 / 6,  # rounds; the refusal of deep is one of depth
    "cascade_depth": 2,  # broken: ship, then hand
    # Time of a run up to its last answer − work along its path, which follows 50 ms after what caused it:
    # shipped  2,950       − (plan 1,050 − 50 − 200 waited = 800, ship 2,100 − 1,100 = 1,000, hand 2,950 − 2,150 = 800)
    # broken   2,000 − 200 − (plan 500 and 1,500 − 1,300 = 200, ship 1,700 − 1,550 = 150, hand 2,000 − 1,750 = 250)
    # rounds   650 − 100   − (runner 650 − 150 = 500)
    # deep     350         − (digger 5,150 − 5,050 = 100, digger 5,350 − 5,200 = 150)
    # plain    300         − (plan 100, ship 100)
    "overhead": ((2_950 - 2_600) + (1_800 - 1_100) + (550 - 500) + (350 - 250) + (300 - 200)) / 5_950,
    "decision_p95": 50,  # of six times 50
    # "ship the red box" and "ship the blue box" have 4 words and 3 pairs each; ship, the, box and "ship the" in common:
    # 1 − 4 ÷ 7. Distances: plan 0, 0 and 1 − 4 ÷ 7, hand and ship 1 − 4 ÷ 7, runner 0, digger 1 and 1: the 4th of 8
    "context_drift": 1 - 4 / 7,
    "p50": 200,  # the 6th of 100, 100, 100, 150, 150, 200, 250, 500, 500, 800, 800, 1,000
    "p95": 1_000,  # the 12th of these: 0.95 × 12 = 11.4
    "p99": 1_000,
    "waiting_p50": 0,  # 11 times 0, once 200
    "waiting_p95": 200,
    "waiting_p99": 200,
    "run_p50": 350,  # the 3rd of 300 (plain), 300 (stopped), 350 (deep), 550 (rounds), 1,800 (broken), 2,950 (shipped)
    "run_p95": 2_950,
    "tokens": 100 + 300 + 10 + 90 + 60,
    "usd": (1_000 + 4_000 + 500 + 1_500 + 1_000) / 1_000_000,
    "tokens_per_run": 560 / 2,
    "usd_per_run": 0.008 / 2,
    "dead_letters": 3,  # broken: hand; rounds and deep: the refused hop
    "refusals": 2,  # rounds: cycle; deep: depth
    "overrides": 3,  # paused, resumed, cancelled
}
TOOK_TOO_LONG: Final = Fault("timed_out", "ship took longer than 1000 ms")
BROKE: Final = Fault("exception", "it broke", "ValueError")


class Recorder(SystemClock):
    """Decides records and stores what follows, at times that the test says. It is the clock of the log, too."""

    def __init__(self, path: Path, topology: Path) -> None:
        self.at_ms = BEGIN_MS
        self.mesh = load_topology(str(topology))
        self.log = SqliteLog(path, clock=self)
        self.state = Partition(self.mesh, number=0, partitions=1)
        self.tasks: dict[tuple[str, str], Event] = {}
        """Run and agent → its last task."""
        self.timers: dict[str, Schedule] = {}
        """Run → its last timer of a task."""

    def now_ms(self) -> int:
        """Return the time that the test says."""
        return self.at_ms

    async def put(self, at_ms: int, record: NewRecord) -> None:
        """Store a record of the inbox, decide it, and store what follows."""
        self.at_ms = BEGIN_MS + at_ms
        effects = self.state.step(await self._stored(record))
        self.at_ms += DECISION_MS
        for effect in effects:
            if isinstance(effect, Schedule):
                self.timers |= {effect.run_id: effect} if effect.task_id else {}
            elif not isinstance(effect, Note):
                assert isinstance(effect, PublishTask | PublishEvent | DeadLetter | Finish), effect
                stored = await self._stored(record_of(effect, self.mesh))
                if isinstance(effect, PublishTask):
                    task = read_event(stored)
                    assert isinstance(task, Event)
                    self.tasks[task.run_id, task.agent] = task

    async def _stored(self, record: NewRecord) -> StoredRecord:
        (verdict,) = await self.log.append([record])
        assert isinstance(verdict, Appended), verdict
        return StoredRecord(
            record.topic, verdict.partition, verdict.offset, self.at_ms, record.key, record.value, record.headers
        )

    async def ask(self, at_ms: int, run: str, type: str, data: bytes) -> None:
        """Request a run."""
        await self.put(
            at_ms, inbox_record(Event(f"{run}-1", "/shop", type, REQUESTED, run, data, subject=run), self.mesh)
        )

    async def answer(
        self,
        at_ms: int,
        run: str,
        agent: str,
        *parts: Part,
        fault: Fault | None = None,
        used: Usage = NO_USAGE,
        waited_ms: int = 0,
    ) -> None:
        """Answer the last task of an agent in a run."""
        task = self.tasks[run, agent]
        event = success_event(task, parts, used) if fault is None else failure_event(task, fault, used)
        event.waited_ms = waited_ms
        await self.put(at_ms, inbox_record(event, self.mesh))

    async def command(self, at_ms: int, run: str, kind: str) -> None:
        """Give an operator's command."""
        record = command_record(
            kind, run, self.mesh, event_id=f"{run}-{kind}", at_ms=BEGIN_MS + at_ms, by="ann", why=""
        )
        await self.put(at_ms, record)


async def record(folder: Path) -> None:
    """Write the log of the scenario."""
    (folder / "topics.yaml").write_text(TOPOLOGY)
    (folder / ".mesh").mkdir(mode=0o700)
    here = Recorder(folder / ".mesh" / "mesh.db", folder / "topics.yaml")
    await here.log.start()
    await here.log.create_topics(topic_specs(here.mesh))
    red, blue, dug = (b'{"text":"ship the red box"}', b'{"text":"ship the blue box"}', b'{"text":"dig on"}')
    await here.ask(0, "shipped", "ask", red)
    await here.ask(100, "rounds", "round.go", dug)
    await here.ask(200, "broken", "ask", blue)
    await here.ask(300, "stopped", "ask", blue)
    await here.command(400, "stopped", PAUSED)
    await here.command(500, "stopped", RESUMED)
    await here.command(600, "stopped", CANCELLED)
    await here.answer(650, "rounds", "runner", Part("round.go", dug))
    await here.answer(750, "broken", "plan", fault=BROKE, used=Usage(500, 10))
    await here.answer(1_050, "shipped", "plan", Part("planned", red), used=Usage(1_000, 100), waited_ms=200)
    await here.put(1_250, due_record(here.timers["broken"], BEGIN_MS + 1_250, here.mesh))
    await here.answer(1_500, "broken", "plan", Part("planned", red), used=Usage(1_500, 90))
    await here.answer(1_700, "broken", "ship", fault=BROKE)
    await here.answer(2_000, "broken", "hand", fault=BROKE)
    await here.answer(2_100, "shipped", "ship", fault=TOOK_TOO_LONG)
    await here.answer(2_950, "shipped", "hand", Part("shipped", blue), used=Usage(4_000, 300))
    await here.ask(5_000, "deep", "dig", dug)
    await here.answer(5_150, "deep", "digger", Part("dig", b'{"text":"deeper"}'))
    await here.answer(5_350, "deep", "digger", Part("dig", b'{"text":"deepest"}'))
    await here.ask(20_000, "plain", "ask", red)
    await here.answer(20_150, "plain", "plan", Part("planned", red), used=Usage(1_000, 60))
    await here.answer(20_300, "plain", "ship", Part("shipped", blue))
    await here.log.close()


def test_every_number_equals_the_one_computed_by_hand(cli: Cli) -> None:
    asyncio.run(record(cli.folder))
    rows = cli("windows", "--json", "--size", "1m", "--since", f"@{BEGIN_MS}").rows
    (row,) = [row for row in rows if row["scope"] == "mesh" and row["start_ms"] == BEGIN_MS]
    assert row["numbers"].keys() == BY_HAND.keys() == DEFINITIONS.keys()
    for name, value in BY_HAND.items():
        rounding = 1 / DRIFT_UNIT if name == "context_drift" else 0.0  # it is stored in thousandths
        assert row["numbers"][name] == pytest.approx(value, rel=0, abs=RELATIVE_ERROR * value + rounding), name


def test_numbers_of_an_agent_equal_those_computed_by_hand(cli: Cli) -> None:
    asyncio.run(record(cli.folder))
    rows = cli("windows", "hand", "--json", "--size", "1m", "--since", f"@{BEGIN_MS}").rows
    (row,) = [row for row in rows if row["start_ms"] == BEGIN_MS]
    wanted = {
        "error_rate": 1 / 2,  # of run broken
        "fallback_rate": 2 / 2,
        "cascade_depth": 2,
        "p50": 250,  # of 250 and 800
        "usd": 0.004,
        "usd_per_run": 0.004 / 2,  # what it added to a completed run
        "tokens_per_run": 300 / 2,
        "dead_letters": 1,
    }
    for name, value in wanted.items():
        assert row["numbers"][name] == pytest.approx(value, rel=RELATIVE_ERROR), name


def test_the_recorded_decisions_are_those_of_the_mesh(cli: Cli) -> None:
    asyncio.run(record(cli.folder))
    done = cli("verify")
    assert done.code == 0, done.out
    assert "6 runs: nothing diverges" in done.out
