"""The door for upstream code, against a whole embedded mesh."""

import asyncio
import gc
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, cast

import pytest

from mesh import InvalidInput, LogUnavailable, Mesh, NotAccepted, Payload, WaitTimeout, agent
from mesh.adapters.ports import Appended, Bounds, Log, Refused
from mesh.client import TOGETHER_MAX, Run
from mesh.core.protocol.record import NewRecord
from mesh.core.publishing.request_rejection import rejection_record
from mesh.testing import MeshTest

TOPOLOGY = """
mesh: {name: t, prefix: mesh, inbox: {partitions: 2}, limits: {deadline: 20s, payload_max: 4KB}}
topics:
  asks: {ingress: ask, id: id, partitions: 2}
  answers: {egress: answer, partitions: 2}
agents:
  echo: {run: "tests.test_client:echo", on: ask, emits: answer, retry: {attempts: 1}}
"""


class Ask(Payload, type="ask"):
    id: str
    n: int = 0


class Answer(Payload, type="answer"):
    n: int


@agent
async def echo(ask: Ask) -> Answer:
    if ask.n < 0:
        raise ValueError("negative")
    if ask.n == 999:
        await asyncio.Event().wait()
    return Answer(n=ask.n + 1)


@pytest.fixture
async def mesh() -> AsyncIterator[MeshTest]:
    async with MeshTest(TOPOLOGY, agents={"echo": echo}) as mesh:
        yield mesh


async def test_a_published_request_has_an_outcome(mesh: MeshTest) -> None:
    run = await mesh.publish("ask", Ask(id="a", n=41))
    outcome = await run.outcome(timeout_s=20)
    assert outcome
    assert [(r.type, r.agent, r.data) for r in outcome.results] == [("answer", "echo", {"n": 42})]


async def test_a_failed_run_says_why_and_is_not_true(mesh: MeshTest) -> None:
    outcome = await (await mesh.publish("ask", {"id": "a", "n": -1})).outcome(timeout_s=20)
    assert not outcome
    assert (outcome.ending, outcome.failures[0]["message"]) == ("failed", "negative")


async def test_the_same_request_again_is_the_same_run_and_has_the_same_outcome(mesh: MeshTest) -> None:
    first = await mesh.publish("ask", {"id": "a", "n": 1})
    outcome = await first.outcome(timeout_s=20)
    second = await mesh.publish("ask", {"id": "a", "n": 1})
    assert second.id == first.id
    assert await second.outcome(timeout_s=20) == outcome


async def test_many_requests_travel_in_one_append(mesh: MeshTest) -> None:
    events = [mesh.client.request("ask", {"id": f"a{n}", "n": n}) for n in range(300)]
    runs = await mesh.client.send(events)
    outcomes = await asyncio.gather(*(run.outcome(timeout_s=20) for run in runs))
    assert [o.results[0].data["n"] for o in outcomes] == list(range(1, 301))


class Counted:
    """A log as it is, that counts what it is given together and refuses the last of each."""

    def __init__(self, log: Log) -> None:
        self.log = log
        self.appends: list[int] = []

    async def append(self, records: Sequence[NewRecord]) -> Sequence[Appended | Refused]:
        self.appends.append(len(records))
        return [*await self.log.append(records[:-1]), Refused("too_large", "the last one")]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.log, name)


async def test_concurrent_publishers_share_an_append(mesh: MeshTest) -> None:
    log = Counted(mesh.log)
    client = Mesh(cast(Log, log), mesh.topology)
    with pytest.raises(InvalidInput):
        await client.publish("ask", {"id": "alone"})
    asked = [asyncio.create_task(client.publish("ask", {"id": f"a{n}"})) for n in range(TOGETHER_MAX + 20)]
    await asyncio.sleep(0)
    asked[0].cancel()
    answers = await asyncio.gather(*asked, return_exceptions=True)
    assert log.appends == [1, TOGETHER_MAX, 20]
    assert isinstance(answers[0], asyncio.CancelledError)
    refused = [n for n, answer in enumerate(answers) if isinstance(answer, InvalidInput)]
    assert refused == [TOGETHER_MAX - 1, TOGETHER_MAX + 19], "each hears of its own request"
    runs = [answer for answer in answers if isinstance(answer, Run)]
    places = [run.position for run in runs if run.position.partition == runs[0].position.partition]
    assert places == sorted(places), "in the order in which they asked"
    assert all(await asyncio.gather(*(run.outcome(timeout_s=20) for run in runs[:50])))
    assert (await client.outcome(client.request("ask", {"id": "a0"}).run_id)).ending == "completed", (
        "it was taken along"
    )
    await client.close()


async def test_a_later_request_comes_later_also_behind_concurrent_publishers(mesh: MeshTest) -> None:
    await mesh.client.publish("ask", {"id": "first"})
    published = asyncio.create_task(mesh.client.publish("ask", {"id": "waits", "n": 999}, run_id="run-1"))
    cancelled = asyncio.create_task(mesh.client.cancel("run-1"))
    run, _ = await asyncio.gather(published, cancelled)
    assert (await run.outcome(timeout_s=20)).ending == "cancelled", "the wish came before the run"


class Slow(Counted):
    """A log that takes a moment to say where its topics end, as one behind a network does."""

    async def bounds(self, topic: str) -> Mapping[int, Bounds]:
        for _ in range(3):
            await asyncio.sleep(0)
        return await self.log.bounds(topic)

    async def append(self, records: Sequence[NewRecord]) -> Sequence[Appended | Refused]:
        return await self.log.append(records)


def watchers() -> int:
    return sum(task.get_name() == "outcomes" for task in asyncio.all_tasks())


async def test_one_watcher_of_outcomes_serves_all_that_publish_first(mesh: MeshTest) -> None:
    before = watchers()
    client = Mesh(cast(Log, Slow(mesh.log)), mesh.topology)
    runs = await asyncio.gather(*(client.publish("ask", {"id": f"a{n}"}) for n in range(5)))
    assert watchers() == before + 1
    assert all(await asyncio.gather(*(run.outcome(timeout_s=20) for run in runs)))
    await client.close()
    assert watchers() == before


async def test_a_client_that_was_closed_meanwhile_is_not_watched_for(mesh: MeshTest) -> None:
    before = watchers()
    client = Mesh(cast(Log, Slow(mesh.log)), mesh.topology)
    asked = asyncio.create_task(client.publish("ask", {"id": "a"}))
    await asyncio.sleep(0)
    await client.close()
    with pytest.raises(LogUnavailable, match="the mesh is closed"):
        await asked
    assert watchers() == before


class Broken(Counted):
    """A log that is gone once `gone` is set."""

    def __init__(self, log: Log) -> None:
        super().__init__(log)
        self.asked, self.gone = asyncio.Event(), asyncio.Event()

    async def append(self, records: Sequence[NewRecord]) -> Sequence[Appended | Refused]:
        self.asked.set()
        await self.gone.wait()
        raise LogUnavailable("away", where="here")


async def test_an_append_that_fails_when_all_have_gone_away_is_no_lost_error(mesh: MeshTest) -> None:
    lost: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: lost.append(context))
    log = Broken(mesh.log)
    client = Mesh(cast(Log, log), mesh.topology)
    before = asyncio.all_tasks()
    asked = asyncio.create_task(client.publish("ask", {"id": "a"}))
    async with asyncio.timeout(10):
        await log.asked.wait()
        appends = [task for task in asyncio.all_tasks() - before if "_put" in repr(task)]
        asked.cancel()
        await asyncio.wait([asked])
        log.gone.set()
        await asyncio.wait(appends)
    del appends, asked
    gc.collect()
    assert lost == []
    await client.close()


async def test_outcomes_that_came_before_anybody_asked_are_at_hand(mesh: MeshTest) -> None:
    runs = await mesh.client.send([mesh.client.request("ask", {"id": f"a{n}", "n": n}) for n in range(50)])
    await runs[-1].outcome(timeout_s=20)
    async with asyncio.timeout(20):  # one after the other: each would look back for a second
        assert all([await run.outcome(timeout_s=20) for run in runs])


async def test_waiting_ends_at_its_timeout_and_the_run_goes_on(mesh: MeshTest) -> None:
    run = await mesh.publish("ask", {"id": "a", "n": 999}, deadline_s=0.4)
    with pytest.raises(WaitTimeout, match="has not ended within"):
        await run.outcome(timeout_s=0.05)
    outcome = await run.outcome(timeout_s=20)
    assert (outcome.ending, outcome.refusals[0]["code"]) == ("stopped", "deadline")


async def test_a_deadline_is_a_time_from_when_the_log_takes_the_request(mesh: MeshTest) -> None:
    event = mesh.client.request("ask", {"id": "a", "n": 999}, deadline_s=0.4)
    assert event.expiry_ms == -400, "no clock of the caller is in it"
    (run,) = await mesh.client.send([event])
    assert (await run.outcome(timeout_s=20)).refusals[0]["limit"] == 400
    late = await mesh.publish("ask", {"id": "b"}, deadline_s=-5)
    assert (await late.outcome(timeout_s=20)).refusals[0]["code"] == "bad_deadline"
    longest = mesh.client.request("ask", {"id": "c"}, deadline_s=float("inf"))
    assert longest.expiry_ms == -366 * 86_400_000


@pytest.mark.parametrize(
    ("type", "payload", "options", "code"),
    [
        ("aks", {"id": "a"}, {}, "unknown_type"),
        ("ask", {"n": 1}, {}, "bad_id"),
        ("ask", {"id": ""}, {}, "bad_id"),
        ("ask", {"id": "a"}, {"run_id": ""}, "bad_id"),
        ("ask", {"id": "a"}, {"id": "x" * 1_025}, "bad_id"),
        ("ask", {"id": "a"}, {"id": "line\nfeed"}, "bad_id"),
        ("ask", b"{", {}, "unparseable"),
        ("ask", b'{"id": "a", "id": "b"}', {}, "duplicate_key"),
        ("ask", b'{"id": "a", "n": NaN}', {}, "bad_number"),
        ("ask", b'{"id": ' + b"[" * 40 + b"]" * 40 + b"}", {}, "too_deep"),
        ("ask", {"id": "x" * 5_000}, {}, "too_large"),
        ("ask", {"id": object()}, {}, "unparseable"),
        ("ask", {"id": "a", "n": [1.0, {"x": float("nan")}]}, {}, "bad_number"),
        ("ask", {"id": "a", "n": float("-inf")}, {}, "bad_number"),
    ],
)
async def test_a_bad_request_is_refused_at_once_by_its_reason(
    mesh: MeshTest, type: str, payload: object, options: dict[str, str], code: str
) -> None:
    with pytest.raises(InvalidInput) as refused:
        await mesh.publish(type, payload, **options)
    assert refused.value.code == code


async def test_a_rejection_by_intake_reaches_the_waiting_client(mesh: MeshTest) -> None:
    waiting = asyncio.ensure_future(mesh.client.outcome("run-7", timeout_s=20))
    await asyncio.sleep(0)
    await mesh.log.append([rejection_record("run-7", "bad_deadline", "it is no time", mesh.topology)])
    with pytest.raises(NotAccepted, match="bad_deadline: it is no time"):
        await waiting


async def test_connect_opens_what_the_flags_name(mesh: MeshTest, tmp_path_factory: pytest.TempPathFactory) -> None:
    file = tmp_path_factory.mktemp("t") / "topics.yaml"
    file.write_text(TOPOLOGY)
    async with Mesh.connect(log=mesh.log.url, topology=str(file)) as client:
        run = await client.publish("ask", {"id": "z", "n": 1})
        assert await run.outcome(timeout_s=20)


async def test_a_closed_mesh_says_so(mesh: MeshTest) -> None:
    client = Mesh(mesh.log, mesh.topology)
    await client.publish("ask", {"id": "a"})
    await client.close()
    with pytest.raises(LogUnavailable, match="the mesh is closed"):
        await client.publish("ask", {"id": "b"})


# --------------------------------------------------------------------------- requests that their run did not take in


@pytest.mark.parametrize("when", ["while it is open", "when it has ended"])
async def test_a_repeated_request_with_another_body_does_not_get_the_first_outcome(mesh: MeshTest, when: str) -> None:
    n = 999 if when == "while it is open" else 1
    first = await mesh.publish("ask", {"id": "a", "n": n}, deadline_s=1)
    if when == "when it has ended":
        assert await first.outcome(timeout_s=20)
    second = await mesh.publish("ask", {"id": "a", "n": 2}, deadline_s=1)
    with pytest.raises(NotAccepted, match="another body") as refused:
        await second.outcome(timeout_s=20)
    assert (refused.value.code, refused.value.exit_code) == ("idempotency_conflict", 5)
    assert "give a new request a new id" in str(refused.value).lower()
    assert (await first.outcome(timeout_s=20)).run_id == second.id


async def test_a_request_after_the_end_of_a_run_does_not_get_its_outcome(mesh: MeshTest) -> None:
    first = await mesh.publish("ask", {"id": "a", "n": 1}, run_id="together")
    assert await first.outcome(timeout_s=20)
    late = await mesh.publish("ask", {"id": "b", "n": 1}, run_id="together")
    with pytest.raises(NotAccepted, match="ended completed") as refused:
        await late.outcome(timeout_s=20)
    assert refused.value.code == "already_terminal"


# ------------------------------------------------------------------------------------------------- wishes about a run


async def test_a_cancelled_run_ends_cancelled_at_once(mesh: MeshTest) -> None:
    run = await mesh.publish("ask", {"id": "a", "n": 999})
    place = await mesh.client.cancel(run.id, by="ann", why="no longer wanted")
    assert place.partition == run.position.partition
    assert place.offset > run.position.offset
    assert (await run.outcome(timeout_s=20)).ending == "cancelled"


@pytest.mark.parametrize("run_id", ["", "*", "with space", "x" * 129])
async def test_a_run_command_for_an_unknown_run_is_refused(mesh: MeshTest, run_id: str) -> None:
    for wish in (mesh.client.cancel, mesh.client.pause, mesh.client.resume):
        with pytest.raises(InvalidInput) as refused:
            await wish(run_id)
        assert refused.value.code == "bad_id"
