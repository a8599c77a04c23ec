"""Faults that come with the records: poison, duplicates, zombies, bombs, circles, races for a budget, floods."""

import asyncio
import random
import time
from collections.abc import Sequence

from bench.kills import records_of
from mesh.adapters.ports import Refused
from mesh.core.protocol.codec import plain_headers
from mesh.core.protocol.record import NewRecord, Record
from tests.live.chaos.checker import header
from tests.live.chaos.fault import Criterion, Fault, Figures, Phase
from tests.live.chaos.faults_processes import NO_RETRY
from tests.live.chaos.field import Field
from tests.live.chaos.stubs import HEAP, SPREE

BUDGET_CENTS = 25
BAD = (
    b"",
    b"{",
    b"[1, 2",
    b"\xff\xfe\x00",
    b'{"id": NaN}',
    b'{"id": "a", "id": "b"}',
    b"null",
    b'{"id": ""}',
    b"[" * 2_000,
)
POISON, SHUFFLED = 50, 500


async def ask(field: Field, phase: Phase, how: str, *, count: int = 1, n: int = 0) -> list[str]:
    """Ask for trouble."""
    return await field.upstream.ask("chaos.odd", f"{phase.name}!{how}", count=count, how=how, n=n)


async def too_large(field: Field, phase: Phase) -> None:
    """F14: one of a fan-out is larger than its topic takes, then a fan-out right behind it."""
    for _ in range(field.scale.times(20)):
        await ask(field, phase, "heap", count=2)


async def poison(field: Field, phase: Phase) -> None:
    """F21."""
    before = {place_of(record) for record in await records_of(field.log, field.topology.dead)}
    topics = [field.ingress["chaos.ask"], field.topology.inbox]
    dice = random.Random(f"{field.seed}:{phase.name}")
    records = [
        NewRecord(topics[n % 2], b"poison", dice.choice(BAD), (), n % field.topology.inbox_partitions)
        for n in range(POISON)
    ]
    began = time.monotonic()
    verdicts = await field.log.append(records)
    assert not any(isinstance(verdict, Refused) for verdict in verdicts)
    places: list[str] = []
    async with asyncio.timeout(60):
        while len(set(places)) < POISON:
            found = [place_of(record) for record in await records_of(field.log, field.topology.dead)]
            places = [place for place in found if place not in before and place.partition(":")[0] in topics]
            await asyncio.sleep(0.02)
    phase.facts |= {"dead_after_s": round(time.monotonic() - began, 2), "dead": len(set(places))}


def place_of(record: Record) -> str:
    """Return the position of a dead letter's record."""
    return ":".join(header(record, f"__dlq.errors.{name}") for name in ("topic", "partition", "offset"))


async def duplicates(field: Field, phase: Phase) -> None:
    """F24: everything that was said about a run is said again, zero to three times, shuffled."""
    dice = random.Random(f"{field.seed}:{phase.name}")
    await field.upstream.ask("chaos.ask", phase.name, count=field.scale.times(2_000, 12))
    topics = [*field.ingress.values(), field.topology.inbox, *(field.topology.tasks(a) for a in field.topology.agents)]
    for wait_for in (field.scale.times(500, 4), field.scale.times(2_000, 12)):
        await field.upstream.progress(wait_for, phase.name)
        runs = set(field.upstream.of(phase.name))
        again = [
            record
            for topic in topics
            for record in await records_of(field.log, topic)
            if header(record, "ce_correlationid") in runs
            or (record.key or b"").startswith(b"%s-" % phase.name.encode())
        ]
        copies = [_copy(record) for record in again for _ in range(dice.randint(0, 3))]
        for at in range(0, len(copies), SHUFFLED):
            window = copies[at : at + SHUFFLED]
            dice.shuffle(window)
            await field.log.append(window)
        phase.facts["records_repeated"] = phase.facts.get("records_repeated", 0) + len(copies)
    await field.upstream.ask("chaos.ask", phase.name)  # whatever was repeated lies before this one


def _copy(record: Record) -> NewRecord:
    return NewRecord(record.topic, record.key, record.value, record.headers, record.partition)


async def zombies(field: Field, phase: Phase) -> None:
    """F25: while the second attempt runs, a first one that was given up says that it succeeded."""
    runs = await ask(field, phase, "second", count=field.scale.times(100, 5), n=field.scale.second_ms)
    forged: list[NewRecord] = []
    done: set[str] = set()
    async with asyncio.timeout(60):
        while len(done) < len(runs):
            for record in await records_of(field.log, field.topology.inbox):
                run = (record.key or b"").decode()
                if run in runs and run not in done and header(record, "ce_meshkind") == "failed":
                    done.add(run)
                    forged.append(_zombie(record))
            await asyncio.sleep(0.02)
    tasks = field.topology.tasks("odd")
    async with asyncio.timeout(60):
        while True:  # until all second attempts are under way
            again = [r for r in await records_of(field.log, tasks) if header(r, "mesh-attempt") == "2"]
            if {header(r, "ce_correlationid") for r in again} >= set(runs):
                break
            await asyncio.sleep(0.01)
    open_before = [run for run in runs if run not in field.upstream.ended]
    await field.log.append(forged)
    await field.upstream.all_ended(runs, 60)
    await field.log.append(forged)
    phase.facts["forged_while_open"] = len(open_before)
    phase.facts["zombies_believed"] = sum(b"zombie" in field.upstream.bodies.get(run, b"") for run in runs)


def _zombie(record: Record) -> NewRecord:
    """The answer that the first attempt would have given."""
    changed = {
        "ce_meshkind": b"succeeded",
        "ce_type": b"chaos.leaf",
        "content-type": b"application/json",
        "ce_id": f"{header(record, 'ce_meshtask')}:1:succeeded".encode(),
    }
    plain = plain_headers(record.headers)
    headers = [(name, changed.get(name, value)) for name, value in plain if not name.startswith("mesh-error")]
    return NewRecord(record.topic, record.key, b'{"id":"zombie","place":"zombie"}', headers)


async def bombs(field: Field, phase: Phase) -> None:
    """F35."""
    for how in ("bomb", "large-bomb", "same", "changing", "circle"):
        await ask(field, phase, how, count=field.scale.times(20, 2))


async def race(field: Field, phase: Phase) -> None:
    """F36."""
    await ask(field, phase, "spree", count=field.scale.times(20, 3))


async def flood(field: Field, phase: Phase) -> None:
    """F34: a backlog for an agent that can do next to nothing; the others must not notice."""
    keeper = field.keepers["odd"]
    await field.upstream.progress(10, phase.name)
    calm = field.upstream.latencies(phase.name)
    before_mb = keeper.rss_mb
    runs = await ask(field, phase, "queue", count=field.scale.times(400, 16), n=40)
    seen = len(field.upstream.latencies(phase.name))
    peak_mb = before_mb
    async with asyncio.timeout(900):
        while any(run not in field.upstream.ended for run in runs):
            peak_mb = max(peak_mb, keeper.rss_mb)
            await asyncio.sleep(0.1)
    crowded = field.upstream.latencies(phase.name)
    phase.facts |= {
        "backlog": len(runs) * SPREE,
        "p50_s_before": round(calm[len(calm) // 2], 3),
        "p50_s": round(crowded[len(crowded) // 2], 3),
        "trees_ended_meanwhile": len(crowded) - seen,
        "rss_growth_mb": round(peak_mb - before_mb, 1),
    }


async def killers(field: Field, phase: Phase) -> None:
    """F22: a task that ends its process, among tasks of the same agent that do not."""
    for _ in range(field.scale.times(5)):
        await ask(field, phase, "leaf", count=5)
        (run,) = await ask(field, phase, "exit")
        await ask(field, phase, "leaf", count=5)
        await field.upstream.all_ended([run], 120)


def each(figures: Figures, how: str, **expected: object) -> bool:
    """Whether there are outcomes of these runs and each of them says so."""
    found: Sequence[dict[str, object]] = figures.odd(how)
    return bool(found) and all(outcome[name] == value for outcome in found for name, value in expected.items())


CONTENT = (
    Fault(
        "F14",
        "one record of a fan-out of 60 is too large for its topic",
        too_large,
        (
            Criterion(
                "that task fails by name, the others are done",
                lambda f: each(f, "heap", ending="failed", codes=["refused_too_large"], failures=1, results=HEAP - 1),
            ),
        ),
        load=False,
    ),
    Fault(
        "F21",
        "50 records of poison on ingress and inbox",
        poison,
        (
            NO_RETRY,
            Criterion(
                "each is a dead letter within 5 s (and what a busy machine adds)",
                lambda f: f.facts["dead_after_s"] < 10,
            ),
        ),
    ),
    Fault("F24", "everything is said again, 0 to 3 times, shuffled", duplicates, (NO_RETRY,), load=False),
    Fault(
        "F25",
        "results of a first attempt after the second began",
        zombies,
        (
            Criterion("some came while the second attempt ran", lambda f: f.facts["forged_while_open"] > 0),
            Criterion("none is believed", lambda f: f.facts["zombies_believed"] == 0),
            Criterion("all complete", lambda f: each(f, "second", ending="completed", results=1)),
        ),
        load=False,
    ),
    Fault(
        "F34",
        "a flood for an agent that is slow",
        flood,
        (
            NO_RETRY,
            Criterion("the others go on", lambda f: f.facts["trees_ended_meanwhile"] > 0),
            Criterion("as fast as before, or nearly", lambda f: f.facts["p50_s"] <= 2 * f.facts["p50_s_before"] + 1),
            Criterion("memory stays within the window", lambda f: f.facts["rss_growth_mb"] < 100),
            Criterion("the flood is worked off", lambda f: each(f, "queue", ending="completed", results=SPREE)),
        ),
    ),
    Fault(
        "F35",
        "2,000 and 10,000 subtasks at once; circles; loops with changing input",
        bombs,
        (
            Criterion("the bomb is refused whole", lambda f: each(f, "bomb", codes=["fanout"], tasks=1, results=0)),
            Criterion(
                "one that is too large for the log fails by name",
                lambda f: each(f, "large-bomb", ending="failed", codes=["refused_too_large"], tasks=1, results=0),
            ),
            Criterion("the same again is a cycle", lambda f: each(f, "same", codes=["cycle"], tasks=1)),
            Criterion("changing input runs into its cap", lambda f: each(f, "changing", codes=["visits"], tasks=4)),
            Criterion("A → B → A is a cycle", lambda f: each(f, "circle", codes=["cycle"], tasks=2)),
            Criterion(
                "each ends stopped",
                lambda f: all(each(f, how, ending="stopped") for how in ("bomb", "same", "changing", "circle")),
            ),
        ),
        load=False,
    ),
    Fault(
        "F36",
        "50 subtasks race for a budget of 25",
        race,
        (
            Criterion(
                "exactly as many as can be paid for",
                lambda f: each(
                    f, "spree", ending="partial", results=BUDGET_CENTS, refused=SPREE - BUDGET_CENTS, usd=0.25
                ),
            ),
        ),
        load=False,
    ),
    Fault(
        "F22",
        "a task that kills its process",
        killers,
        (
            Criterion("it is given up", lambda f: each(f, "exit", ending="failed", codes=["crash_loop"])),
            Criterion("after exactly 3 starts each", lambda f: len(f.notes("exit")) == 3 * len(f.odd("exit"))),
            Criterion("the others of that agent finish", lambda f: each(f, "leaf", ending="completed")),
        ),
        load=False,
    ),
)
