"""The orchestrator on a real log: what it publishes, what it restores, what it refuses to lose."""

import asyncio
from collections.abc import Sequence

import orjson
import pytest

from mesh.adapters.clock import SystemClock
from mesh.adapters.ports import Log, TopicSpec
from mesh.app.wiring import topic_specs
from mesh.core.errors import TopicsInvalid
from mesh.core.protocol.codec import Unreadable, event_headers, read_event
from mesh.core.protocol.event import NO_USAGE, REQUESTED, SWITCHED, Event, Fault, Part
from mesh.core.protocol.record import NewRecord, Record, TopicPartition
from mesh.core.run.control import Control, Switch, control_record, relay_record
from mesh.core.state.checkpoint import CommitNote, read_note
from mesh.core.state.partition_state import Partition
from mesh.core.task import result
from mesh.core.topology.loader import load
from mesh.core.topology.model import Topology
from mesh.runtime.checkpoint_manager import COSTS, Costs
from mesh.services.orchestrator import Orchestrator
from tests.services.conftest import append, read_all, read_until, settled, working

TEXT = """
mesh: {name: t, prefix: mesh, inbox: {partitions: 2}, limits: {deadline: 20s}}
topics:
  asks: {ingress: ask, partitions: 2}
  answers: {egress: answer, partitions: 2}
agents:
  echo: {run: "x:y", on: ask, emits: answer, retry: {attempts: 2, first: 20ms, jitter: 0}}
"""
TOPOLOGY = load(TEXT)
GROUP = "mesh.orchestrator"


def orchestrator(log: Log, topology: Topology = TOPOLOGY, *, costs: Costs = COSTS) -> Orchestrator:
    return Orchestrator(log, topology, SystemClock(), session_timeout_ms=2_000, costs=costs)


def request(run_id: str, *, expiry_ms: int | None = None, type: str = "ask") -> NewRecord:
    asked = Event(f"e-{run_id}", "/test", type, REQUESTED, run_id, b'{"q":1}', expiry_ms=expiry_ms)
    return NewRecord(TOPOLOGY.inbox, run_id.encode(), asked.data, event_headers(asked))


def event(record: Record) -> Event:
    found = read_event(record)
    assert not isinstance(found, Unreadable), found
    return found


def to_inbox(answer: Event) -> NewRecord:
    return NewRecord(TOPOLOGY.inbox, answer.run_id.encode(), answer.data, event_headers(answer))


async def test_a_request_becomes_a_task_and_its_answer_an_outcome(log: Log) -> None:
    async with working(log, TOPOLOGY, orchestrator(log).run):
        await append(log, request("r1"))
        (task,) = [event(r) for r in await read_until(log, TOPOLOGY.tasks("echo"), 1)]
        assert (task.run_id, task.agent, task.depth, task.path, task.data) == ("r1", "echo", 1, ("echo",), b'{"q":1}')
        await append(log, to_inbox(result.success_event(task, [Part("answer", b'{"a":2}')], NO_USAGE)))
        (outcome,) = await read_until(log, TOPOLOGY.outcomes, 1)
        (egress,) = await read_until(log, "answers", 1)
    body = orjson.loads(outcome.value or b"")
    assert (body["ending"], body["results"][0]["data"]) == ("completed", {"a": 2})
    assert (outcome.key, egress.value) == (b"r1", b'{"a":2}')


async def test_a_new_owner_goes_on_where_the_last_one_committed(log: Log) -> None:
    async with working(log, TOPOLOGY, orchestrator(log).run):
        await append(log, request("r1"), request("r2"), request("r3"))
        tasks = [event(r) for r in await read_until(log, TOPOLOGY.tasks("echo"), 3)]
        await settled(log, "mesh.orchestrator", TOPOLOGY.inbox)
    async with working(log, TOPOLOGY, orchestrator(log).run):
        await append(log, *(to_inbox(result.success_event(t, [Part("answer", b"1")], NO_USAGE)) for t in tasks))
        outcomes = await read_until(log, TOPOLOGY.outcomes, 3)
        await settled(log, "mesh.orchestrator", TOPOLOGY.inbox)
    assert {o.key for o in outcomes} == {b"r1", b"r2", b"r3"}
    assert len(await read_all(log, TOPOLOGY.tasks("echo"))) == 3, "a silent fold publishes nothing"


async def test_a_failed_attempt_is_due_again_after_its_delay_even_for_a_new_owner(log: Log) -> None:
    async with working(log, TOPOLOGY, orchestrator(log).run):
        await append(log, request("r1"))
        (task,) = [event(r) for r in await read_until(log, TOPOLOGY.tasks("echo"), 1)]
    await append(log, to_inbox(result.failure_event(task, Fault("exception", "boom"), NO_USAGE)))
    async with working(log, TOPOLOGY, orchestrator(log).run):
        again = [event(r) for r in await read_until(log, TOPOLOGY.tasks("echo"), 2)][1]
        assert (again.task_id, again.attempt, again.data) == (task.task_id, 2, task.data)
        await append(log, to_inbox(result.failure_event(again, Fault("exception", "boom again"), NO_USAGE)))
        (outcome,) = await read_until(log, TOPOLOGY.outcomes, 1)
        (dead,) = await read_until(log, TOPOLOGY.dead, 1)
    assert orjson.loads(outcome.value or b"")["ending"] == "failed"
    headers = dict(dead.headers)
    assert (dead.value, headers["__dlq.errors.message"], headers["__dlq.errors.delivery.count"]) == (
        b'{"q":1}',
        b"boom again",
        b"2",
    )


async def test_a_deadline_ends_a_run_without_answers(log: Log) -> None:
    async with working(log, TOPOLOGY, orchestrator(log).run):
        await append(log, request("r1", expiry_ms=SystemClock().now_ms() + 150))
        (outcome,) = await read_until(log, TOPOLOGY.outcomes, 1)
    body = orjson.loads(outcome.value or b"")
    assert (body["ending"], body["refusals"][0]["code"]) == ("stopped", "deadline")
    assert "echo" in body["refusals"][0]["message"]


async def test_a_stop_is_relayed_into_every_partition_once_for_any_owner(log: Log) -> None:
    stop = control_record(Switch("agent", "echo", "stopped", "ann@desk"), TOPOLOGY, event_id="c1")
    async with working(log, TOPOLOGY, orchestrator(log).run):
        await append(log, stop)
        told = await read_until(log, TOPOLOGY.inbox, 2)
        await settled(log, "mesh.orchestrator", TOPOLOGY.inbox)
    assert sorted(record.partition for record in told) == [0, 1]
    assert {event(record).kind for record in told} == {SWITCHED}
    again = orchestrator(log)
    async with working(log, TOPOLOGY, again.run):
        await again.ready.wait()
        await append(log, request("r1"))
        await read_until(log, TOPOLOGY.tasks("echo"), 1)
    assert len(await read_all(log, TOPOLOGY.inbox)) == 3, "the new owner knows it from the fold"


@pytest.mark.parametrize("offset", [0, 1, 10**15])
async def test_a_false_statement_about_switches_on_the_inbox_is_corrected(log: Log, offset: int) -> None:
    """Whatever offset it claims, what mesh.control really says stands a moment later, and so does what it says next."""
    stop = Switch("agent", "echo", "stopped", "ann@desk")
    lie = Control(offset, 1, {"agent:*": Switch("agent", "*", "stopped", "evil", offset=offset)})

    def known(records: Sequence[Record], number: int) -> Control:
        state = Partition(TOPOLOGY, number=number, partitions=2)
        for record in records:
            if record.partition == number:
                state.step(record)
        return state.control

    async def stands(offset: int, stopped: set[str]) -> None:
        """Wait until both partitions know what mesh.control says as of this offset."""
        found: list[Control] = []
        for _ in range(500):
            records = await read_all(log, TOPOLOGY.inbox)
            found = [known(records, number) for number in (0, 1)]
            if all(control.offset == offset and control.switches.keys() == stopped for control in found):
                return
            await asyncio.sleep(0.02)
        raise AssertionError(found)

    async with working(log, TOPOLOGY, orchestrator(log).run):
        await append(log, control_record(stop, TOPOLOGY, event_id="c1"))
        await stands(0, {"agent:echo"})
        await append(log, *(relay_record(lie, TOPOLOGY, number) for number in (0, 1)))
        await append(log, control_record(stop._replace(state="running"), TOPOLOGY, event_id="c2"))
        await stands(1, set())
        await append(log, control_record(stop, TOPOLOGY, event_id="c3"))
        await stands(2, {"agent:echo"})


async def test_bytes_that_are_no_event_are_dead_letters_and_stop_nothing(log: Log) -> None:
    async with working(log, TOPOLOGY, orchestrator(log).run):
        await append(
            log,
            NewRecord(TOPOLOGY.inbox, b"r1", b"\x00\xff", (), None),
            NewRecord(TOPOLOGY.inbox, b"wrong", request("r1").value, request("r1").headers),
            request("r1"),
        )
        await read_until(log, TOPOLOGY.tasks("echo"), 1)
        dead = await read_until(log, TOPOLOGY.dead, 2)
    assert {dict(d.headers)["mesh-dlq-reason"] for d in dead} == {b"not_cloudevents", b"key_mismatch"}
    assert {d.value for d in dead} == {b"\x00\xff", b'{"q":1}'}


async def test_a_late_answer_is_counted_and_changes_nothing(log: Log) -> None:
    service = orchestrator(log)
    async with working(log, TOPOLOGY, service.run):
        await append(log, request("r1"))
        (task,) = [event(r) for r in await read_until(log, TOPOLOGY.tasks("echo"), 1)]
        answer = to_inbox(result.success_event(task, [Part("answer", b"1")], NO_USAGE))
        await append(log, answer, answer, answer)
        await read_until(log, TOPOLOGY.outcomes, 1)
        await settled(log, "mesh.orchestrator", TOPOLOGY.inbox)
    assert service.notes["late_result"] == 2
    assert len(await read_all(log, TOPOLOGY.outcomes)) == 1


async def test_two_orchestrators_share_the_partitions_and_every_run_ends_once(log: Log) -> None:
    first, second = orchestrator(log), orchestrator(log)
    runs = [f"r{n}" for n in range(40)]
    async with working(log, TOPOLOGY, first.run):
        await append(log, *(request(run) for run in runs[:20]))
        async with working(log, TOPOLOGY, second.run):
            await second.ready.wait()
            await append(log, *(request(run) for run in runs[20:]))
            tasks = [event(r) for r in await read_until(log, TOPOLOGY.tasks("echo"), 40)]
            await append(
                log, *(to_inbox(result.success_event(t, [Part("answer", b"1")], NO_USAGE)) for t in tasks[:20])
            )
        await append(log, *(to_inbox(result.success_event(t, [Part("answer", b"1")], NO_USAGE)) for t in tasks[20:]))
        await read_until(log, TOPOLOGY.outcomes, 40)
        await settled(log, "mesh.orchestrator", TOPOLOGY.inbox)
    outcomes = await read_all(log, TOPOLOGY.outcomes)
    assert sorted({(o.key or b"").decode() for o in outcomes}) == sorted(runs)
    assert len({event(o).id for o in outcomes}) == 40


# ---------------------------------------------------------------------------------------------------------- checkpoints

EAGER = Costs(tail_us_min=100)
"""A checkpoint whenever a few records cost more than the state."""


async def notes(log: Log) -> dict[int, tuple[int, CommitNote]]:
    """Return the committed offset and metadata of each partition."""
    return {p: (c.offset, read_note(c.metadata)) for p, c in (await log.committed(GROUP, TOPOLOGY.inbox)).items()}


async def cut(log: Log) -> None:
    """Remove all of the inbox that the named checkpoints make superfluous."""
    for partition, (_, note) in (await notes(log)).items():
        await log.trim(TopicPartition(TOPOLOGY.inbox, partition), note.offset)


def answers(tasks: list[Event]) -> list[NewRecord]:
    return [to_inbox(result.success_event(task, [Part("answer", b"1")], NO_USAGE)) for task in tasks]


async def test_a_graceful_stop_leaves_a_checkpoint_of_the_last_record_and_the_successor_needs_no_other(
    log: Log,
) -> None:
    async with working(log, TOPOLOGY, orchestrator(log).run):
        await append(log, *(request(f"r{n}") for n in range(20)))
        tasks = [event(r) for r in await read_until(log, TOPOLOGY.tasks("echo"), 20)]
        await append(log, *answers(tasks[:10]))
        await read_until(log, TOPOLOGY.outcomes, 10)
    ends = {partition: bounds.end for partition, bounds in (await log.bounds(TOPOLOGY.inbox)).items()}
    left = await notes(log)
    assert {partition: (end, end) for partition, end in ends.items()} == {
        partition: (place, note.offset) for partition, (place, note) in left.items()
    }
    assert all(note.checkpoint for _, note in left.values())
    await cut(log)
    async with working(log, TOPOLOGY, orchestrator(log).run):
        await append(log, *answers(tasks))  # half of them once more
        outcomes = await read_until(log, TOPOLOGY.outcomes, 20)
        await settled(log, GROUP, TOPOLOGY.inbox)
    assert {(o.key or b"").decode() for o in outcomes} == {f"r{n}" for n in range(20)}
    assert len(await read_all(log, TOPOLOGY.outcomes)) == 20


async def test_a_killed_orchestrator_is_followed_from_its_last_checkpoint_and_the_tail(log: Log) -> None:
    await log.create_topics(topic_specs(TOPOLOGY))
    service = orchestrator(log, costs=EAGER._replace(row_us=10))
    killed = asyncio.ensure_future(service.run(asyncio.Event()))
    await append(log, *(request(f"r{n}") for n in range(40)))
    tasks = [event(r) for r in await read_until(log, TOPOLOGY.tasks("echo"), 40)]
    async with asyncio.timeout(20):
        while not all(note.checkpoint for _, note in (await notes(log)).values()):
            await append(
                log, NewRecord(TOPOLOGY.inbox, b"r1", b"", (), 0), NewRecord(TOPOLOGY.inbox, b"r1", b"", (), 1)
            )
            await asyncio.sleep(0.005)
    killed.cancel()
    await asyncio.wait([killed])
    await cut(log)
    async with working(log, TOPOLOGY, orchestrator(log).run):
        await append(log, *answers(tasks))
        outcomes = await read_until(log, TOPOLOGY.outcomes, 40)
    assert len({o.key for o in outcomes}) == 40


async def test_timers_are_there_again_after_a_checkpoint(log: Log) -> None:
    async with working(log, TOPOLOGY, orchestrator(log).run):
        await append(log, request("r1"), request("r2", expiry_ms=SystemClock().now_ms() + 900))
        tasks = {t.run_id: t for t in map(event, await read_until(log, TOPOLOGY.tasks("echo"), 2))}
        await append(log, to_inbox(result.failure_event(tasks["r1"], Fault("exception", "boom"), NO_USAGE)))
        await settled(log, GROUP, TOPOLOGY.inbox)
    await cut(log)
    async with working(log, TOPOLOGY, orchestrator(log).run):
        again = await read_until(log, TOPOLOGY.tasks("echo"), 3)
        (outcome,) = await read_until(log, TOPOLOGY.outcomes, 1)
    assert {(event(r).run_id, event(r).attempt) for r in again} == {("r1", 1), ("r1", 2), ("r2", 1)}
    assert (outcome.key, orjson.loads(outcome.value or b"")["ending"]) == (b"r2", "stopped")


async def test_a_new_owner_reads_no_run_until_something_comes_for_it(log: Log) -> None:
    async with working(log, TOPOLOGY, orchestrator(log).run):
        await append(log, *(request(f"r{n}") for n in range(10)))
        tasks = [event(r) for r in await read_until(log, TOPOLOGY.tasks("echo"), 10)]
        await settled(log, GROUP, TOPOLOGY.inbox)
    heir = orchestrator(log)
    async with working(log, TOPOLOGY, heir.run):
        await heir.ready.wait()
        tables = [state.runs for state in heir._states.values()]
        assert [table.warm for table in tables] == [{}, {}]
        assert sum(len(table.cold) for table in tables) == 10
        assert all(timers.next_ms() is not None for timers in heir._timers.values()), "their deadlines are known"
        await append(log, *answers(tasks[:1]))
        await read_until(log, TOPOLOGY.outcomes, 1)
        assert sum(len(table.cold) for table in tables) == 9


async def test_a_run_goes_on_under_the_topology_it_was_opened_under(log: Log) -> None:
    async with working(log, TOPOLOGY, orchestrator(log).run):
        await append(log, request("r1"))
        (task,) = [event(r) for r in await read_until(log, TOPOLOGY.tasks("echo"), 1)]
    changed = load(TEXT.replace("emits: answer", "emits: reply").replace("egress: answer", "egress: reply"))
    heir = orchestrator(log, changed)
    async with working(log, changed, heir.run):
        await heir.ready.wait()  # what lies in the inbox before is decided under the topology of before
        await append(log, request("r2"))
        first, second = [event(r) for r in await read_until(log, TOPOLOGY.tasks("echo"), 2)]
        reply = result.success_event(second if second.run_id == "r2" else first, [Part("reply", b"2")], NO_USAGE)
        await append(log, *answers([task]), to_inbox(reply))
        outcomes = await read_until(log, TOPOLOGY.outcomes, 2)
    found = {(o.key or b"").decode(): orjson.loads(o.value or b"") for o in outcomes}
    assert {run: (o["ending"], o["results"][0]["type"]) for run, o in found.items()} == {
        "r1": ("completed", "answer"),
        "r2": ("completed", "reply"),
    }
    assert {note.topology for _, note in (await notes(log)).values()} == {changed.digest}


async def test_a_mesh_without_a_place_for_its_checkpoints_does_not_start(log: Log) -> None:
    await log.create_topics([spec for spec in topic_specs(TOPOLOGY) if spec.name != TOPOLOGY.checkpoints])
    with pytest.raises(TopicsInvalid, match=r"mesh\.checkpoints is missing"):
        await orchestrator(log).run(asyncio.Event())


async def test_an_inbox_with_another_number_of_partitions_is_refused(log: Log) -> None:
    await log.create_topics([TopicSpec(TOPOLOGY.inbox, 5)])
    with pytest.raises(TopicsInvalid, match=r"mesh\.inbox has 5 partitions, 2 declared"):
        await orchestrator(log).run(asyncio.Event())
