"""Faults of our own processes: killed, stopped, asked to stop, replaced, run into their limits."""

import asyncio
import json
import random
import signal
import time
from collections.abc import Callable

from mesh.core.protocol.record import TopicPartition
from tests.live.chaos.failpoint import KILLED
from tests.live.chaos.fault import Criterion, Fault, Phase
from tests.live.chaos.field import Field

TERMINATED = 128 + signal.SIGTERM
NAP_MS = 4_000
"""A task that is not done when the second signal comes."""
POINTS = ("before-append", "after-append", "before-commit", "after-commit", "during-restore", "during-revoke")
NO_RETRY = Criterion(
    "every run completes: none fails because of a kill", lambda f: set(f.of("endings")) <= {"completed"}
)


async def _kills(field: Field, phase: Phase, kind: str, full: int, *, least: int = 1, pace: float = 1.0) -> None:
    """SIGKILL one of a kind, at random, again and again while it works; `pace` times as often as the scale says."""
    dice = random.Random(f"{field.seed}:{phase.name}")
    for _ in range(field.scale.times(full, least)):
        done = len(field.upstream.latencies(phase.name))
        await field.upstream.progress(done + dice.randint(2, 8), phase.name)
        keeper = dice.choice(field.some(kind))
        await keeper.ready()
        before = len(keeper.exits)
        keeper.send(signal.SIGKILL)
        await keeper.exited(before)
        phase.kills += 1
        await asyncio.sleep(dice.uniform(field.scale.gap_s / 3, field.scale.gap_s) / pace)


async def kill_orchestrators(field: Field, phase: Phase) -> None:
    """F01."""
    await _kills(field, phase, "orchestrator", 30, least=2)


async def kill_both_orchestrators(field: Field, phase: Phase) -> None:
    """F02."""
    for _ in range(field.scale.times(10)):
        await field.upstream.all_ended(field.upstream.of(phase.name), 60)  # no run is to be hit twice
        await field.upstream.progress(len(field.upstream.latencies(phase.name)) + 3, phase.name)
        both = field.some("orchestrator")
        gone = [keeper.child for keeper in both]
        for keeper in both:
            keeper.send(signal.SIGKILL)
            phase.kills += 1
        await asyncio.gather(*(keeper.ready(after=old) for keeper, old in zip(both, gone, strict=True)))


async def kill_workers(field: Field, phase: Phase) -> None:
    """F03."""
    await _kills(field, phase, "worker", 60, least=3, pace=3)


async def kill_intake(field: Field, phase: Phase) -> None:
    """The same for the door."""
    await _kills(field, phase, "intake", 30, least=2)


async def die_at_named_points(field: Field, phase: Phase) -> None:
    """F04."""
    keeper, other = field.keepers["orchestrator-2"], field.keepers["orchestrator-1"]
    phase.facts["hit"] = hit = dict.fromkeys(POINTS, 0)
    for number in range(field.scale.times(20)):
        for point in POINTS:
            await keeper.ready()
            late = 1 + (3 * number + 2) % 40 if point.endswith(("append", "commit")) else 1
            keeper.change(point=f"{point}:{late}")
            old, count = keeper.child, len(keeper.exits)
            keeper.send(signal.SIGTERM)
            await keeper.exited(count)
            if point == "during-revoke":
                await keeper.ready(after=old)
                other.send(signal.SIGKILL)  # whoever joins makes the others let go
            hit[point] += (await keeper.exited(count + 1)).code == KILLED
            phase.kills += 1


async def stop_and_go_on(field: Field, phase: Phase) -> None:
    """F07."""
    dice = random.Random(f"{field.seed}:{phase.name}")
    for _ in range(field.scale.times(20)):
        keeper = dice.choice(field.some("orchestrator"))
        await keeper.ready()
        keeper.send(signal.SIGSTOP)
        phase.kills += 1
        await asyncio.sleep(3 * field.scale.session_ms / 1000)
        keeper.send(signal.SIGCONT)
        await field.upstream.progress(len(field.upstream.latencies(phase.name)) + 5, phase.name)


async def block_the_loop(field: Field, phase: Phase) -> None:
    """F15."""
    (keeper,) = field.some("odd")
    before = len(keeper.exits)
    began = time.monotonic()
    await field.upstream.ask("chaos.odd", f"{phase.name}!block", how="block")
    left = await field.upstream.all_ended(field.upstream.of(phase.name), 60)
    phase.facts |= {"took_s": round(time.monotonic() - began, 1), "process_ended": len(keeper.exits) > before}
    phase.facts["told"] = any("blocks the event loop" in line for line in keeper.child.lines)
    assert not left or not phase.facts["process_ended"]


def live_counts(field: Field, name: str) -> dict[str, int]:
    """Count the times that each partition became live in the current process of a keeper."""
    counts: dict[str, int] = {}
    for line in field.keepers[name].child.lines:
        if "partition is live" in line:
            partition = str(json.loads(line)["partition"])
            counts[partition] = counts.get(partition, 0) + 1
    return counts


async def restore_slowly(field: Field, phase: Phase) -> None:
    """F16."""
    (keeper,) = field.some("orchestrator-2")
    slow_ms = 2 * field.scale.session_ms
    keeper.change(point=f"slow-restore:{slow_ms}")
    began = time.monotonic()
    await keeper.replace()
    counts = live_counts(field, keeper.name)
    phase.facts |= {"restored_s": round(time.monotonic() - began, 1), "session_s": field.scale.session_ms / 1000}
    phase.facts["restores_of_one_partition_max"] = max(counts.values(), default=0)
    keeper.change()
    await keeper.replace()


class Idle:
    """A member of the group that does nothing with what it is given."""

    def assigned(self, partitions: "list[TopicPartition] | object") -> None:
        """Keeps it paused."""

    async def revoked(self, partitions: "list[TopicPartition] | object") -> None:
        """Has nothing to finish."""


async def storm(field: Field, phase: Phase) -> None:
    """F17."""
    group, topic = f"{field.topology.prefix}.orchestrator", field.topology.inbox
    began = time.time()
    for _ in range(field.scale.times(100, 4)):
        member = await field.log.join(group, [topic], Idle(), session_timeout_ms=field.scale.session_ms)
        until = time.monotonic() + 1.5
        while time.monotonic() < until:
            await member.poll(records_max=1, wait_ms=100)
        await member.close()
        phase.kills += 1
        await asyncio.sleep(1.5)
    seconds = int(time.time() - began)
    busy = {int(at - began) for at in field.upstream.ended.values() if at >= began}
    phase.facts["busy_part"] = round(len(busy) / max(1, seconds), 2)


async def overlap(field: Field, phase: Phase) -> None:
    """F19."""
    codes: list[int] = []
    for n in range(field.scale.times(20)):
        for kind in ("orchestrator", "worker"):
            keeper = field.some(kind)[n % 2]
            extra = field.extra(keeper)
            await extra.ready()
            began = time.monotonic()
            exit = await keeper.replace()
            codes.append(exit.code)
            phase.kills += 1
            phase.facts["drain_s_max"] = max(phase.facts.get("drain_s_max", 0.0), round(exit.at_s - began, 2))
            codes.append(await extra.end())
    phase.facts["codes"] = sorted(set(codes))


async def _ends(keeper_kind: str, field: Field, *, twice: bool = False) -> tuple[float, int]:
    """SIGTERM to all of a kind; seconds until the last has ended, and the worst exit status."""
    keepers = field.some(keeper_kind)
    counts = [len(keeper.exits) for keeper in keepers]
    began = time.monotonic()
    for keeper in keepers:
        keeper.send(signal.SIGTERM)
    if twice:
        await asyncio.sleep(0.5)  # by now it drains
        began = time.monotonic()
        for keeper in keepers:
            keeper.send(signal.SIGTERM)
    exits = [await keeper.exited(count) for keeper, count in zip(keepers, counts, strict=True)]
    wrong = [exit.code for exit in exits if exit.code != TERMINATED]
    return max(exit.at_s for exit in exits) - began, wrong[0] if wrong else TERMINATED


async def terminate(field: Field, phase: Phase) -> None:
    """F20."""
    found: dict[str, tuple[float, int]] = {}

    async def note(name: str, kind: str, *, twice: bool = False) -> None:
        took_s, code = await _ends(kind, field, twice=twice)
        found[name] = (round(took_s, 2), code)
        phase.kills += 1

    for kind in ("worker", "orchestrator", "intake"):
        await field.all_ready()
        await note(f"{kind}, under load", kind)
    await field.all_ready()
    await field.upstream.ask("chaos.odd", f"{phase.name}!nap", how="nap", n=NAP_MS)
    await field.noted("nap")
    await note("worker at work, twice", "odd", twice=True)
    await field.all_ready()
    (other, leaving) = field.some("orchestrator")
    before = other.child
    other.send(signal.SIGTERM)
    await note("orchestrators, while they rebalance", leaving.name)
    await other.ready(after=before)
    await field.all_ready()
    if field.brokers:
        field.broker.signal(signal.SIGSTOP)
        try:
            async with asyncio.TaskGroup() as group:
                for kind in ("worker", "orchestrator", "intake"):
                    group.create_task(note(f"{kind}, broker hangs", kind))
        finally:
            field.broker.signal(signal.SIGCONT)
    phase.facts["ends"] = found


def _ends_within(seconds: float, which: Callable[[str], bool]) -> Callable[..., bool]:
    def holds(figures: object) -> bool:
        ends = figures.facts["ends"]  # type: ignore[attr-defined]
        return all(took_s <= seconds for name, (took_s, _) in ends.items() if which(name))

    return holds


async def few_files(field: Field, phase: Phase) -> None:
    """F33."""
    for name, point in (("worker-2", "files:20"), ("orchestrator-2", "files:64"), ("worker-2", "memory:700")):
        keeper = field.keepers[name]
        keeper.change(point=point)
        before = len(keeper.exits)
        keeper.send(signal.SIGTERM)
        await keeper.exited(before)
        phase.kills += 1
        done = len(field.upstream.latencies(phase.name))
        await field.upstream.progress(done + field.scale.times(200, 12), phase.name)
        phase.facts[f"{name} {point}"] = [exit.code for exit in keeper.exits[before + 1 :]]
        keeper.change()
        keeper.send(signal.SIGTERM)


P99_LATE = Criterion("99 of 100 runs end within 4 sessions", lambda f: f.late_s(0.99) <= 4 * f.session_s + 5)

PROCESSES = (
    Fault(
        "F01",
        "orchestrators killed (-9)",
        kill_orchestrators,
        (
            NO_RETRY,
            P99_LATE,
            Criterion(
                "repeated commands ≤ kills x batches in flight", lambda f: f.of("tasks_repeated") <= f.kills * 4 * 500
            ),
        ),
    ),
    Fault(
        "F02",
        "both orchestrators killed (-9) at once",
        kill_both_orchestrators,
        (
            NO_RETRY,
            Criterion(
                "no run waits longer than restart + session + restore", lambda f: f.late_s(1.0) <= f.session_s * 2 + 20
            ),
        ),
    ),
    Fault(
        "F03",
        "workers killed (-9)",
        kill_workers,
        (NO_RETRY, Criterion("calls of a task ≤ 1 + kills", lambda f: f.of("calls_of_one_task_max") <= 1 + f.kills)),
    ),
    Fault("F03i", "the intake killed (-9)", kill_intake, (NO_RETRY,)),
    Fault(
        "F04",
        "orchestrator ends at named points",
        die_at_named_points,
        (
            NO_RETRY,
            Criterion("each point was hit", lambda f: all(f.facts["hit"].get(p, 0) > 0 for p in POINTS)),
        ),
    ),
    Fault("F07", "an orchestrator stopped for 3 sessions, then on", stop_and_go_on, (NO_RETRY,)),
    Fault(
        "F15",
        "a handler blocks the loop for 2 sessions",
        block_the_loop,
        (
            NO_RETRY,
            Criterion(
                "the blocked run ends all the same", lambda f: [r["ending"] for r in f.odd("block")] == ["completed"]
            ),
            Criterion("it was begun once", lambda f: f.notes("block") == ["block"]),
            Criterion("the watchdog says what blocks", lambda f: f.facts["told"]),
        ),
    ),
    Fault(
        "F16",
        "a restore that takes 2 sessions",
        restore_slowly,
        (
            NO_RETRY,
            Criterion("no member is evicted while restoring", lambda f: f.facts["restores_of_one_partition_max"] == 1),
        ),
    ),
    Fault(
        "F17",
        "a member joins and leaves every 3 s",
        storm,
        (NO_RETRY, Criterion("useful work in ≥ 20 % of the time", lambda f: f.facts["busy_part"] >= 0.2)),
    ),
    Fault(
        "F19",
        "old and new process overlap (rolling deploy)",
        overlap,
        (NO_RETRY, Criterion("no process had to be forced to end", lambda f: f.facts["codes"] == [TERMINATED])),
    ),
    Fault(
        "F20",
        "SIGTERM under load, twice, while rebalancing, with a broker that hangs",
        terminate,
        (
            NO_RETRY,
            Criterion("ends within 25 s", _ends_within(25, lambda _: True)),
            Criterion("the second SIGTERM ends within 1 s", _ends_within(1.5, lambda name: "twice" in name)),
            Criterion("what it was at is done by its successor", lambda f: len(f.odd("nap")) == 1),
            Criterion("with status 143", lambda f: all(code == TERMINATED for _, code in f.facts["ends"].values())),
        ),
    ),
    Fault("F33", "64 files, 700 MB of address space", few_files, (NO_RETRY,)),
)
