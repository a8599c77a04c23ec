"""Faults of the servers and of the way to them: brokers, links, Redis."""

import asyncio
import shutil
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from mesh.adapters.deadline import EXTENSION_MS, EXTENSIONS_MAX
from tests.live.chaos.fault import Criterion, Fault, Phase
from tests.live.chaos.faults_processes import NO_RETRY, live_counts
from tests.live.chaos.field import Field
from tests.live.chaos.supervisor import Keeper

BOARD_GONE_MS_MAX = 250 + EXTENSIONS_MAX * EXTENSION_MS
"""The deadline of a board call, and the further looks of a process that was held up (`mesh/adapters/deadline.py`)."""


async def _more(field: Field, phase: Phase, count: int) -> None:
    """Wait until so many more trees have ended."""
    await field.upstream.progress(len(field.upstream.latencies(phase.name)) + count, phase.name, patience_s=120)


async def kill_the_broker(field: Field, phase: Phase) -> None:
    """F05."""
    for _ in range(field.scale.times(10)):
        await _more(field, phase, 5)
        exits = sum(len(keeper.exits) for keeper in field.keepers.values())
        field.broker.signal(signal.SIGKILL)
        phase.kills += 1
        await asyncio.to_thread(field.broker.start)
        began = time.monotonic()
        await _more(field, phase, 1)
        back_s = round(time.monotonic() - began, 1)
        phase.facts["first_outcome_after_s_max"] = max(phase.facts.get("first_outcome_after_s_max", 0.0), back_s)
        ended = sum(len(keeper.exits) for keeper in field.keepers.values()) - exits
        phase.facts["processes_that_ended"] = phase.facts.get("processes_that_ended", 0) + ended


async def stop_the_broker(field: Field, phase: Phase) -> None:
    """F08."""
    for seconds in (5, 20, 60)[: field.scale.times(3)]:
        await _more(field, phase, 3)
        field.broker.signal(signal.SIGSTOP)
        phase.kills += 1
        await asyncio.sleep(seconds)
        field.broker.signal(signal.SIGCONT)
        began = time.monotonic()
        await _more(field, phase, 1)
        phase.facts[f"first_outcome_after_{seconds}_s"] = round(time.monotonic() - began, 1)


@asynccontextmanager
async def through_the_proxy(field: Field) -> AsyncIterator[Keeper]:
    """One orchestrator reaches the broker through the proxy."""
    keeper = field.keepers["orchestrator-2"]
    keeper.change(log=field.proxied_url)
    await keeper.replace()
    try:
        yield keeper
    finally:
        field.proxy.heal()
        keeper.change()
        await keeper.replace()


async def _half_open(field: Field, phase: Phase, *, up: bool, down: bool) -> None:
    async with through_the_proxy(field) as keeper:
        await _more(field, phase, 3)
        field.proxy.hold(up=up, down=down)
        phase.kills += 1
        await asyncio.sleep(max(2.5 * field.scale.session_ms / 1000, 30 * field.scale.kills))
        before = len(field.upstream.latencies(phase.name))
        await _more(field, phase, 2)  # the other one has taken over, before the link is mended
        phase.facts["ended_while_cut"] = len(field.upstream.latencies(phase.name)) - before
        field.proxy.heal()
        await _more(field, phase, 3)
        phase.facts["restores_of_one_partition_max"] = max(live_counts(field, keeper.name).values(), default=0)


async def nothing_goes_up(field: Field, phase: Phase) -> None:
    """F09."""
    await _half_open(field, phase, up=True, down=False)


async def nothing_comes_down(field: Field, phase: Phase) -> None:
    """F10."""
    await _half_open(field, phase, up=False, down=True)


async def slow_link(field: Field, phase: Phase) -> None:
    """F11."""
    async with through_the_proxy(field) as keeper:
        before = live_counts(field, keeper.name)
        field.proxy.latency_ms, field.proxy.jitter_ms = 200.0, 100.0
        await _more(field, phase, field.scale.times(600, 20))
        field.proxy.latency_ms = 1_000.0  # there and back: a spike of two seconds
        await asyncio.sleep(2)
        field.proxy.latency_ms = 200.0
        phase.kills += 1
        await _more(field, phase, field.scale.times(300, 10))
        after = live_counts(field, keeper.name)
        phase.facts["restores_meanwhile"] = sum(after.values()) - sum(before.values())


async def resets(field: Field, phase: Phase) -> None:
    """F12."""
    async with through_the_proxy(field) as keeper:
        await _more(field, phase, 3)
        before_mb = keeper.rss_mb
        for _ in range(field.scale.times(120, 5)):
            field.proxy.reset_all()
            phase.kills += 1
            await asyncio.sleep(1)
        await _more(field, phase, 5)
        phase.facts |= {"rss_growth_mb": round(keeper.rss_mb - before_mb, 1), "connections_reset": field.proxy.resets}


async def rebalance_and_restart_while_restoring(field: Field, phase: Phase) -> None:
    """F18."""
    slow, other = field.keepers["orchestrator-2"], field.keepers["orchestrator-1"]
    slow.change(point=f"slow-restore:{field.scale.session_ms}")
    for what in ("rebalance", "broker"):
        await _more(field, phase, 3)
        before = slow.child
        slow.send(signal.SIGTERM)
        await slow.exited(len(slow.exits))
        while slow.child is before or slow.child.process is None:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.75 * field.scale.session_ms / 1_000)
        phase.kills += 1
        if what == "rebalance":
            other.send(signal.SIGKILL)
        else:
            field.broker.signal(signal.SIGKILL)
            await asyncio.to_thread(field.broker.start)
        await slow.ready(after=before)
    slow.change()
    await slow.replace()
    await _more(field, phase, 5)


async def replicas_in_sync(field: Field) -> None:
    """Wait until every partition of the mesh has all its replicas."""
    topics, _ = field.log._start_once()  # type: ignore[attr-defined]
    names = [field.topology.inbox, field.topology.outcomes, *field.ingress.values()]
    async with asyncio.timeout(90):
        while True:
            described: list[Any] = await topics._admin.describe_topics(names)
            partitions = [partition for topic in described for partition in topic["partitions"]]
            if all(len(partition["isr"]) == field.brokers for partition in partitions):
                return
            await asyncio.sleep(0.1)


async def rolling_restart(field: Field, phase: Phase) -> None:
    """F06."""
    before = len(field.upstream.errors)
    for _ in range(field.scale.times(5)):
        for node in range(1, field.brokers + 1):
            await _more(field, phase, 3)
            pid = field.broker.pid(node)
            field.broker.signal(signal.SIGTERM, node)
            phase.kills += 1
            while pid is not None and _runs(pid):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
            await asyncio.to_thread(field.broker.start)
            await replicas_in_sync(field)
    phase.facts["asks_that_failed"] = len(field.upstream.errors) - before
    rounds = [max(live_counts(field, keeper.name).values(), default=1) - 1 for keeper in field.some("orchestrator")]
    phase.facts["rebalances"] = max(rounds)
    phase.facts["processes_that_ended"] = sum(len(keeper.exits) for keeper in field.keepers.values())


def _runs(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def kill_redis(field: Field, phase: Phase) -> None:
    """F26."""
    how = f"{phase.name}!board"
    for number in range(field.scale.times(10)):
        await field.upstream.ask("chaos.odd", how, count=5, how="board")
        await field.redis.signal(signal.SIGKILL)
        phase.kills += 1
        asked = await field.upstream.ask("chaos.odd", how, count=5, how="board")
        await field.upstream.all_ended(asked, 60)
        await _more(field, phase, 5)  # progress without the board
        if number % 2 == 0:
            shutil.rmtree(field.folder / "redis")
        await field.redis.start()
        asked = await field.upstream.ask("chaos.odd", how, count=5, how="board")
        await field.upstream.all_ended(asked, 60)


def board_times(notes: list[str]) -> list[int]:
    """Milliseconds after which calls failed because the board was gone, from the agents' notes."""
    return [int(note.partition(":")[2]) for note in notes if note.startswith("board_unavailable:")]


LOG = (
    Fault(
        "F05",
        "the broker killed (-9), started on the same data",
        kill_the_broker,
        (
            NO_RETRY,
            Criterion("all go on within 60 s of its return", lambda f: f.facts["first_outcome_after_s_max"] <= 60),
        ),
    ),
    Fault("F08", "the broker stopped for 5 s (20 s, 60 s)", stop_the_broker, (NO_RETRY,)),
    Fault(
        "F09",
        "half-open link: nothing reaches the broker",
        nothing_goes_up,
        (NO_RETRY, Criterion("the other took over meanwhile", lambda f: f.facts["ended_while_cut"] >= 2)),
    ),
    Fault(
        "F10",
        "half-open link: no reply comes back",
        nothing_comes_down,
        (NO_RETRY, Criterion("the other took over meanwhile", lambda f: f.facts["ended_while_cut"] >= 2)),
    ),
    Fault(
        "F11",
        "a link of 200 ± 100 ms, with spikes of 2 s",
        slow_link,
        (NO_RETRY, Criterion("no member is evicted", lambda f: f.facts["restores_meanwhile"] == 0)),
    ),
    Fault(
        "F12",
        "all connections reset, once a second",
        resets,
        (NO_RETRY, Criterion("memory does not grow", lambda f: f.facts["rss_growth_mb"] < 40)),
    ),
    Fault(
        "F18",
        "a rebalance, a broker's death, each during a restore",
        rebalance_and_restart_while_restoring,
        (NO_RETRY,),
    ),
    Fault(
        "F26",
        "Redis killed (-9), started empty or with its data",
        kill_redis,
        (
            NO_RETRY,
            Criterion(
                "tasks that use the board end too", lambda f: {r["ending"] for r in f.odd("board")} == {"completed"}
            ),
            Criterion("some calls met its absence", lambda f: len(board_times(f.notes("board"))) > 0),
            Criterion(
                f"they failed within {BOARD_GONE_MS_MAX} ms in which their process ran",
                lambda f: all(ms <= BOARD_GONE_MS_MAX for ms in board_times(f.notes("board"))),
            ),
        ),
    ),
)
CLUSTER = (
    Fault(
        "F06",
        "three brokers, restarted one after the other",
        rolling_restart,
        (
            NO_RETRY,
            Criterion("no ask fails", lambda f: f.facts["asks_that_failed"] == 0),
            Criterion("at most 2 rebalances a restart", lambda f: f.facts["rebalances"] <= 2 * f.kills),
            Criterion("no process of ours ends", lambda f: f.facts["processes_that_ended"] == 0),
        ),
    ),
)
