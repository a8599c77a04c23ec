"""All bad records at once through a mesh that is up: each is answered, none stops anything, and the log verifies."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from mesh.adapters.clock import SystemClock
from mesh.adapters.ports import Appended
from mesh.core.protocol.codec import read_event
from mesh.core.protocol.event import Event
from mesh.core.protocol.record import NewRecord, Record, TopicPartition
from mesh.core.task.agent import Payload
from mesh.operations.verification import verify
from mesh.testing import MeshTest
from tests.bad_inputs import ANSWER_ROWS, INBOX_ROWS, INGRESS_ROWS, TASK_ROWS, Row

DESK = """
mesh:
  name: desk
  prefix: mesh
  inbox: {partitions: 1}
  limits: {payload_max: 1000B, state_max: 2500B, fanout_max: 3, tasks_max: 5}
topics:
  in.ask: {ingress: ask, partitions: 1}
  in.other: {ingress: other, partitions: 1}
  out: {egress: [shipped, packed], partitions: 1}
agents:
  check: {run: "m:f", on: ask, emits: [checked, ask], visits_max: 3}
  ship: {run: "m:f", on: {all: [checked, other]}, emits: shipped}
  pack: {run: "m:f", on: checked, emits: packed}
"""
DEADLINE_S = 30


class Ask(Payload, type="ask"):
    id: str


class Checked(Payload, type="checked"):
    id: str


class Other(Payload, type="other"):
    id: str


class Shipped(Payload, type="shipped"):
    id: str


class Packed(Payload, type="packed"):
    id: str


def desk(go_on: asyncio.Event) -> dict[str, Callable[..., Any]]:
    """The agents. The first task is held back until `go_on`."""

    async def check(ask: Ask) -> Checked:
        if ask.id == "first":
            await go_on.wait()
        return Checked(id=ask.id)

    async def ship(checked: Checked, other: Other) -> Shipped:
        return Shipped(id=checked.id)

    async def pack(checked: Checked) -> Packed:
        return Packed(id=checked.id)

    return {"check": check, "ship": ship, "pack": pack}


async def records(mesh: MeshTest, topic: str) -> list[Record]:
    end = (await mesh.log.bounds(topic))[0].end
    reader = mesh.log.reader({TopicPartition(topic, 0): 0})
    found: list[Record] = []
    while reader.position(TopicPartition(topic, 0)) < end:
        found += await reader.poll(records_max=500, wait_ms=100)
    await reader.close()
    return found


async def append(mesh: MeshTest, topic: str, rows: Sequence[tuple[Row, Record]]) -> dict[str, Row]:
    """Append records as they are; answers their coordinates. Records that the log itself refuses are left out."""
    rows = [(row, r) for row, r in rows if all(value is not None for _, value in r.headers)]  # only Kafka has those
    new = [NewRecord(topic, r.key, r.value, r.headers) for _, r in rows]
    verdicts = await mesh.log.append(new)
    return {f"{topic}:0:{v.offset}": row for (row, _), v in zip(rows, verdicts, strict=True) if isinstance(v, Appended)}


def expected_letters(placed: dict[str, Row]) -> dict[str, str]:
    """Coordinates → reason, of those that must become dead letters whole."""
    silent = {"unknown_task", "unknown_run", "late_timer", "late_result", "wrong_agent", "duplicate_request", ""}
    apart = {"schema", "idempotency_conflict"}  # failures and refusals: their letters have ids of their own
    return {where: row.code for where, row in placed.items() if row.code not in silent | apart}


async def test_all_of_it_at_once_is_answered_and_stops_nothing() -> None:
    go_on = asyncio.Event()
    async with asyncio.timeout(DEADLINE_S), MeshTest(DESK, agents=desk(go_on)) as mesh:
        run = await mesh.publish("ask", {"id": "first"})
        task = await _task_of(mesh, run.id)
        (first,) = await records(mesh, "mesh.tasks.check")
        placed = await append(mesh, "in.ask", [(row, row.given) for row in INGRESS_ROWS])
        inbox = [(row, row.given(task)) for row in INBOX_ROWS if row.code != "misrouted"]
        placed |= await append(mesh, "mesh.inbox", inbox)
        bad_tasks = [row for row in TASK_ROWS if isinstance(row.given, dict)]
        spoilt = [(row, _spoilt(first, row.given)) for row in bad_tasks]
        placed |= await append(mesh, "mesh.tasks.check", spoilt)
        wanted = expected_letters(placed)
        assert len(wanted) > 50
        found: dict[str, str] = {}
        while not wanted.keys() <= found.keys():
            found = {}
            for letter in await records(mesh, "mesh.dead"):
                h = {name: (value or b"").decode("utf-8", "replace") for name, value in letter.headers}
                found[":".join(h[f"__dlq.errors.{name}"] for name in ("topic", "partition", "offset"))] = h[
                    "mesh-dlq-reason"
                ]
            await asyncio.sleep(0.01)
        assert {where: found[where] for where in wanted} == wanted
        go_on.set()
        assert (await run.outcome()).ending == "partial", "its join starved, and nothing else happened to it"
        again = await mesh.publish("ask", {"id": "last"})
        assert [result.type for result in (await again.outcome()).results] == ["packed"]
        checked = await verify(mesh.log, mesh.topology, SystemClock())
        assert checked.report.violations == []


def _spoilt(task: Record, changes: dict[str, bytes | None]) -> Record:
    headers = dict(task.headers)
    value = None if "value" in changes else task.value
    merged = {**headers, **{name: text for name, text in changes.items() if name != "value"}}
    # With a key of its own, since tasks of one key wait for one another.
    return task._replace(key=b"spoilt", value=value, headers=tuple(merged.items()))  # type: ignore[attr-defined, no-any-return]


async def test_what_a_run_refuses_leaves_other_runs_alone() -> None:
    go_on = asyncio.Event()
    async with asyncio.timeout(DEADLINE_S), MeshTest(DESK, agents=desk(go_on)) as mesh:
        for n, row in enumerate(ANSWER_ROWS):
            bystander = await mesh.publish("ask", {"id": f"well-{n}"})
            run = await mesh.publish("ask", {"id": "first"}, id=f"r{n}", run_id=f"run-{n}")
            task = await _task_of(mesh, run.id)
            bad = row.given(task)
            if bad.key == run.id.encode() and await append(mesh, "mesh.inbox", [(row, bad)]):
                outcome = await run.outcome()
                assert [refusal["code"] for refusal in outcome.refusals] == [row.code]
            assert (await bystander.outcome()).results
        go_on.set()


async def _task_of(mesh: MeshTest, run_id: str) -> Event:
    while True:
        for record in await records(mesh, "mesh.tasks.check"):
            task = read_event(record)
            if isinstance(task, Event) and task.run_id == run_id:
                return task
        await asyncio.sleep(0.005)
