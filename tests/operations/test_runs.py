"""Runs read back from a real embedded log: one, the latest, and those that happen now."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from typing import Any

import pytest

from mesh import Emit, Payload
from mesh.adapters.ports import Bounds, Commit, Log, Reader
from mesh.core.errors import Ambiguous, NotFound
from mesh.core.history.run_summary import outcome_of
from mesh.core.protocol.record import NewRecord, Record, TopicPartition
from mesh.core.run.control import Switch
from mesh.operations.runs import RunChange, Runs
from mesh.testing import MeshTest
from tests.services.conftest import read_until

TOPOLOGY = """
mesh: {name: t, prefix: mesh, inbox: {partitions: 2}, limits: {deadline: 20s}}
topics:
  asks: {ingress: ask, id: id}
  answers: {egress: answer}
agents:
  first: {run: "t:first", on: ask, emits: half, timeout: 5s, retry: {attempts: 1}}
  second: {run: "t:second", on: half, emits: answer, timeout: 5s}
"""
DEADLINE_S = 20.0


class Ask(Payload, type="ask"):
    id: str
    wait: bool = False
    fail: bool = False


class Half(Payload, type="half"):
    id: str


waiting = asyncio.Event()


async def first(ask: Ask) -> Half:
    if ask.wait:
        await waiting.wait()
    if ask.fail:
        raise ValueError("told to")
    return Half(id=ask.id)


async def second(half: Half) -> Emit:
    return Emit("answer", {"id": half.id})


@pytest.fixture
async def mesh() -> AsyncIterator[MeshTest]:
    global waiting
    waiting = asyncio.Event()  # one for each test: it is bound to the event loop of whoever waits first
    async with MeshTest(TOPOLOGY, agents={"first": first, "second": second}) as mesh:
        yield mesh
        waiting.set()


@pytest.fixture
def runs(mesh: MeshTest) -> Runs:
    return Runs(mesh.log, mesh.topology)


async def ended(mesh: MeshTest, id: str, **payload: Any) -> str:
    """A run that has ended."""
    run = await mesh.publish("ask", {"id": id, **payload})
    await run.outcome(timeout_s=DEADLINE_S)
    return run.id


async def open_run(mesh: MeshTest, runs: Runs, id: str) -> str:
    """A run whose first task has been dispatched and waits."""
    run = await mesh.publish("ask", {"id": id, "wait": True})
    async with asyncio.timeout(DEADLINE_S):
        while (history := await runs.history(run.id)) is None or not history.tasks:  # noqa: ASYNC110  # polls the log
            await asyncio.sleep(0.005)
    return run.id


# ------------------------------------------------------------------------------------------------------------- one run


async def test_a_run_is_found_by_id_prefix_request_and_subject(mesh: MeshTest, runs: Runs) -> None:
    run_id = await ended(mesh, "a-1")
    named = await mesh.publish("ask", {"id": "a-2"}, subject="case 7")
    for name, wanted in ((run_id, run_id), (run_id[:9], run_id), ("a-1", run_id), ("case 7", named.id)):
        assert (await runs.find(name)).run_id == wanted


async def test_a_history_holds_tree_and_outcome(mesh: MeshTest, runs: Runs) -> None:
    history = await runs.find(await ended(mesh, "a"))
    assert [(task.agent, task.state) for task in history.tasks.values()] == [("first", "done"), ("second", "done")]
    assert (history.ending, history.differs, history.results[0].data) == ("completed", False, b'{"id":"a"}')
    failed = await runs.find(await ended(mesh, "b", fail=True))
    assert (failed.ending, failed.failures[0].message) == ("failed", "told to")


async def test_what_is_not_there_is_not_found(mesh: MeshTest, runs: Runs) -> None:
    for name in ("unknown", "f" * 24, "with space", "x" * 500):
        with pytest.raises(NotFound, match="no run goes by"):
            await runs.find(name)


async def test_a_record_for_every_partition_is_no_run(mesh: MeshTest, runs: Runs) -> None:
    await mesh.client.send_switch(Switch("agent", "second", "stopped", "ann@desk"))
    await read_until(mesh.log, "mesh.inbox", 2)
    with pytest.raises(NotFound):
        await runs.find("*")
    assert await runs.latest(limit=10) == []


async def test_a_name_of_several_runs_names_them(mesh: MeshTest, runs: Runs) -> None:
    for n in (1, 2):
        await mesh.publish("ask", {"id": f"x{n}"}, run_id=f"pair-{n}", subject="pair")
    with pytest.raises(Ambiguous, match=r"2 runs go by that name") as refused:
        await runs.find("pair")
    assert (refused.value.code, refused.value.name) == ("ambiguous", "pair")
    assert set(refused.value.got.split(", ")) == {"pair-1", "pair-2"}
    times = [one.opened_ms for one in refused.value.candidates]
    assert times == sorted(times, reverse=True)
    assert min(times) > 0
    assert (await runs.find("pair-2")).run_id == "pair-2"


async def test_a_subject_wins_over_the_beginning_of_an_id(mesh: MeshTest, runs: Runs) -> None:
    await mesh.publish("ask", {"id": "y1"}, run_id="late-1")
    await mesh.publish("ask", {"id": "y2"}, run_id="other", subject="late")
    assert (await runs.find("late")).run_id == "other"


# --------------------------------------------------------------------------------------------------------- latest runs


async def test_latest_runs_come_newest_first_open_ones_too(mesh: MeshTest, runs: Runs) -> None:
    ids = [await ended(mesh, "1"), await ended(mesh, "2", fail=True), await open_run(mesh, runs, "3")]
    rows = await runs.latest(limit=10)
    assert [(row.run_id, row.state) for row in rows] == [
        (ids[2], "open"),
        (ids[1], "failed"),
        (ids[0], "completed"),
    ]
    assert [(row.tasks, row.subject, row.type, row.failures) for row in rows] == [
        (1, "3", "ask", ()),
        (1, "2", "ask", ("first",)),
        (2, "1", "ask", ()),
    ]
    assert rows[0].took_ms is None
    assert rows[2].took_ms is not None
    assert [row.run_id for row in await runs.latest(limit=1)] == [ids[2]]


async def test_latest_runs_are_filtered_and_bounded_by_time(mesh: MeshTest, runs: Runs) -> None:
    early = await ended(mesh, "1")
    since_ms = (await runs.latest(limit=1))[0].opened_ms + 1
    async with asyncio.timeout(DEADLINE_S):
        while not await runs.latest(limit=5, since_ms=since_ms):  # until a millisecond has passed on the log
            await ended(mesh, f"tick-{asyncio.get_running_loop().time()}")
    late = await ended(mesh, "2")
    rows = [row.run_id for row in await runs.latest(limit=100, since_ms=since_ms)]
    assert late in rows
    assert early not in rows
    assert [r.run_id for r in await runs.latest(limit=5, where=lambda row: row.subject == "1")] == [early]


async def test_the_log_is_read_backwards_no_further_than_needed(mesh: MeshTest) -> None:
    events = [mesh.client.request("ask", {"id": f"m{n}", "wait": True}) for n in range(2_000)]
    for start in range(0, 2_000, 50):
        await mesh.client.send(events[start : start + 50])
    log = Counted(mesh.log)
    runs = Runs(log, mesh.topology, window_records=100)
    rows = await runs.latest(limit=3)
    assert {row.state for row in rows} == {"open"}
    # Two partitions: their last windows once for the requests, and once more for the states of those that are open.
    assert 200 <= log.read <= 1_000
    assert len(await runs.latest(limit=100_000)) == 2_000


async def test_an_empty_log_has_no_runs(mesh: MeshTest, runs: Runs) -> None:
    assert await runs.latest(limit=5) == []
    assert await runs.latest(limit=5, since_ms=1) == []


# ----------------------------------------------------------------------------------------------------------- live runs


async def watched(runs: Runs, places: Mapping[TopicPartition, int], *run_ids: str) -> list[RunChange]:
    """All changes until these runs have ended."""
    left, found = set(run_ids), []
    async with asyncio.timeout(DEADLINE_S), aclosing(runs.watch(places)) as changes:
        async for change in changes:
            found.append(change)
            if change.ended:
                left.discard(change.history.run_id)
            if not left:
                break
    return found


async def test_changes_are_reported_as_they_happen_and_the_end_last(mesh: MeshTest, runs: Runs) -> None:
    places = await runs.ends()
    run_id = await ended(mesh, "a")
    changes = await watched(runs, places, run_id)
    assert [change.ended for change in changes] == [False] * (len(changes) - 1) + [True]
    kinds = [moment.kind for change in changes for moment in change.moments]
    assert kinds == ["requested", "dispatched", "succeeded", "dispatched", "succeeded", "left", "ended"]
    assert len(changes[-1].history.tasks) == 2


async def test_a_run_from_before_is_reported_when_it_ends(mesh: MeshTest, runs: Runs) -> None:
    run_id = await open_run(mesh, runs, "a")
    places = await runs.ends()
    waiting.set()
    changes = await watched(runs, places, run_id)
    assert [(change.history.run_id, change.history.ending) for change in changes] == [(run_id, "completed")]
    assert changes[0].history.type == "ask"


async def test_an_outcome_that_is_read_before_its_runs_records_is_reported_after_them(mesh: MeshTest) -> None:
    runs = Runs(OutcomesFirst(mesh.log, mesh.topology.outcomes), mesh.topology)
    places = await runs.ends()
    run_ids = [await ended(mesh, f"a{n}") for n in range(6)]
    changes = await watched(runs, places, *run_ids)
    ends = [change.history for change in changes if change.ended]
    assert sorted(history.run_id for history in ends) == sorted(run_ids)
    assert all([task.agent for task in history.tasks.values()] == ["first", "second"] for history in ends)


async def test_a_request_that_comes_again_after_the_end_is_no_other_run(mesh: MeshTest, runs: Runs) -> None:
    places = await runs.ends()
    run_id = await ended(mesh, "a")
    await mesh.publish("ask", {"id": "a"})
    changes = await watched(runs, places, run_id, await ended(mesh, "b"))
    assert [change.history.run_id for change in changes if change.ended].count(run_id) == 1


async def test_outcomes_are_read_live_and_looked_up_afterwards(mesh: MeshTest, runs: Runs) -> None:
    places = await runs.ends()
    run_id = await ended(mesh, "a")
    async with asyncio.timeout(DEADLINE_S), aclosing(runs.outcomes(places)) as outcomes:
        ended_id, body = await anext(outcomes)
    assert isinstance(body, dict)
    assert (ended_id, body["ending"]) == (run_id, "completed")
    found = await runs.past_outcomes({run_id, "unknown"})
    assert {id: body["ending"] for id, body in found.items()} == {run_id: "completed"}


async def test_what_is_no_outcome_is_passed_over(mesh: MeshTest, runs: Runs) -> None:
    bad = [NewRecord(mesh.topology.outcomes, b"r", value, ()) for value in (b"", b"{", b"[]", None)]
    await mesh.log.append(bad)
    run_id = await ended(mesh, "a")
    assert (await runs.find(run_id)).ending == "completed"
    assert [row.run_id for row in await runs.latest(limit=5)] == [run_id]
    reader = mesh.log.reader({TopicPartition(mesh.topology.outcomes, n): 0 for n in (0, 1)})
    records = await reader.poll(records_max=100, wait_ms=1_000)
    await reader.close()
    assert sum(outcome_of(record) is None for record in records) == sum(r.key == b"r" for r in records) > 0


# ---------------------------------------------------------------------------------------------- logs with a peculiarity


class Wrapped:
    """A log as it is; what is read goes through `passed`."""

    def __init__(self, log: Log) -> None:
        self.log = log
        self.url = log.url

    async def bounds(self, topic: str) -> Mapping[int, Bounds]:
        return await self.log.bounds(topic)

    async def offsets_at(self, topic: str, at_ms: int) -> Mapping[int, int]:
        return await self.log.offsets_at(topic, at_ms)

    async def committed(self, group: str, topic: str) -> Mapping[int, Commit]:
        return await self.log.committed(group, topic)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.log, name)


class Counted(Wrapped):
    """Counts the records that are read."""

    read = 0

    def reader(self, positions: Mapping[TopicPartition, int]) -> Reader:
        return _Counting(self, self.log.reader(positions))


class _Counting:
    def __init__(self, log: Counted, reader: Reader) -> None:
        self._log = log
        self._reader = reader

    async def poll(self, *, records_max: int, wait_ms: int) -> Sequence[Record]:
        records = await self._reader.poll(records_max=records_max, wait_ms=wait_ms)
        self._log.read += len(records)
        return records

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reader, name)


class OutcomesFirst(Wrapped):
    """Its readers hand out all outcomes before anything else, as may happen when partitions are fetched in turn."""

    def __init__(self, log: Log, outcomes: str) -> None:
        super().__init__(log)
        self._outcomes = outcomes

    def reader(self, positions: Mapping[TopicPartition, int]) -> Reader:
        early = {place: at for place, at in positions.items() if place.topic == self._outcomes}
        late = {place: at for place, at in positions.items() if place.topic != self._outcomes}
        if not early or not late:
            return self.log.reader(positions)
        return _InTurn(self.log.reader(early), self.log.reader(late))  # type: ignore[return-value]


class _InTurn:
    def __init__(self, early: Reader, late: Reader) -> None:
        self._early, self._late = early, late

    async def poll(self, *, records_max: int, wait_ms: int) -> Sequence[Record]:
        return await self._early.poll(records_max=records_max, wait_ms=50) or await self._late.poll(
            records_max=3, wait_ms=50
        )

    def position(self, place: TopicPartition) -> int:
        return self._late.position(place)

    async def close(self) -> None:
        await self._early.close()
        await self._late.close()
