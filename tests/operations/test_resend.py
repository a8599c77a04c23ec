"""Requests of a mesh are sent into it again, also after an interruption."""

import asyncio
from typing import Any

import orjson
import pytest

from mesh.core.dead_letters.redrive_log import DONE, SENT
from mesh.core.dead_letters.resend_plan import ResendOptions
from mesh.core.errors import InvalidInput, LogUnavailable
from mesh.core.protocol.record import NewRecord, TopicPartition
from mesh.core.selection.record_filter import RecordFilter
from mesh.core.selection.where import Where
from mesh.core.text_glob import glob_test
from mesh.operations import resend as module
from mesh.operations.dead_letters.redrive_journal import Journal
from mesh.operations.resend import RequestChoice, Resend, read_requests
from tests.operations.broken_log import Broken, Hasty
from tests.operations.resend_kit import (
    DEADLINE_S,
    House,
    ask,
    house,
    records_of,
    requests_of,
    until_requested,
)

__all__ = ["house"]


# ----------------------------------------------------------------------------------------------------------- one mesh


async def test_a_request_begins_a_new_run_with_the_same_payload_and_says_what_it_repeats(house: House) -> None:
    await house.took(ask("a", n=7))
    plan = await house.plan()
    (sending,) = plan.sendings
    report = await Resend(house.mesh.log, house.mesh.topology).send(plan, by="ann")
    await house.until(2)
    assert house.got == [("ask", "a"), ("ask", "a")]
    first, again = await requests_of(house.mesh.log, house.mesh.topology)
    assert (again.run_id, again.id) == (sending.run_id, sending.ids[0])
    assert again.run_id != first.run_id
    assert (again.data, again.type, again.source, again.subject) == (first.data, "ask", "/topics/asks", "a")
    assert (again.cause_id, again.extensions) == ("a", ("replayof", first.run_id))
    outcome = await house.mesh.client.outcome(again.run_id, timeout_s=DEADLINE_S)
    assert outcome.ending == "completed"
    (entry,) = report.sent
    assert (entry.state, entry.way, entry.by, entry.run_id) == (SENT, "resend", "ann", again.run_id)
    original, copy = sorted(await records_of(house.mesh.log, "asks"), key=lambda record: record.timestamp)
    assert (copy.key, copy.value, copy.partition) == (original.key, original.value, original.partition)
    assert dict(copy.headers)["mesh-replay"] == entry.key.encode()
    left = await records_of(house.mesh.log, "answers")
    assert {dict(record.headers).get("ce_replayof") for record in left} == {None, first.run_id.encode()}


async def test_what_was_sent_is_not_sent_again_unless_asked_for(house: House) -> None:
    await house.took(ask("a"), ask("b"))
    resend = Resend(house.mesh.log, house.mesh.topology)
    await resend.send(await house.plan())
    await house.until(4)
    second = await house.plan()
    assert (second.sendings, second.obstacles, len(second.already_done)) == ([], [], 2)
    found = await read_requests(house.mesh.log, house.mesh.topology, RequestChoice())
    assert (len(found.requests), found.resent) == (2, 2), "requests of a resend are left out"
    once_more = await house.plan(options=ResendOptions(again=True))
    assert [sending.n for sending in once_more.sendings] == [2, 2]
    await resend.send(once_more)
    await house.until(6)
    assert len({event.run_id for event in await requests_of(house.mesh.log, house.mesh.topology)}) == 6


async def test_a_run_that_a_resend_began_is_sent_again_by_its_name(house: House) -> None:
    await house.took(ask("a"))
    (sending,) = (plan := await house.plan()).sendings
    await Resend(house.mesh.log, house.mesh.topology).send(plan)
    await house.until(2)
    named = await house.plan(run_id=sending.run_id)
    assert [dict(one.records[0].headers)["ce_replayof"] for one in named.sendings] == [sending.run_id.encode()]


async def test_requests_are_chosen_by_time_type_key_condition_and_number(house: House) -> None:
    for n in range(3):
        await house.took(ask(f"a{n}", n=n))
    await house.took(NewRecord("bids", b"k", b'{"n": 9}'))
    types = {"ask", "bid"}
    events = await requests_of(house.mesh.log, house.mesh.topology)
    middle = sorted(event.at_ms for event in events)[1]

    async def chosen(**choice: Any) -> list[str]:
        plan = await house.plan(**choice)
        return [dict(one.records[0].headers)["ce_causationid"].decode() for one in plan.sendings]

    assert await chosen(wanted=RecordFilter(type="ask")) == ["a0", "a1", "a2"]
    assert await chosen(wanted=RecordFilter(key=glob_test("key-a[12]"))) == []
    assert await chosen(wanted=RecordFilter(key=glob_test("key-*"))) == ["a0", "a1", "a2"]
    assert await chosen(wanted=RecordFilter(key=glob_test("key-a?")), limit=2) == ["a0", "a1"]
    assert await chosen(wanted=RecordFilter(where=Where("ask.n >= 1", types))) == ["a1", "a2"]
    assert await chosen(until_ms=middle) == [e.id for e in events if e.at_ms < middle]
    assert len(await chosen(since_ms=middle)) + len(await chosen(until_ms=middle)) == 4
    assert await chosen(limit=1) == ["a0"]


async def test_a_request_that_came_twice_is_sent_once(house: House) -> None:
    await house.took(ask("a"))
    await house.mesh.log.append([ask("a")])
    await until_requested(house, 2)
    assert len((await house.plan()).sendings) == 1


async def test_every_form_of_a_request_gives_its_agent_the_same_payload(house: House) -> None:
    """Plain JSON with spaces, a structured event, a binary one, and one of a client."""
    event = {"specversion": "1.0", "id": "s", "source": "/shop", "type": "ask", "data": {"id": "s"}}
    binary = [("ce_specversion", b"1.0"), ("ce_id", b"b"), ("ce_source", b"urn:x"), ("ce_type", b"ask")]
    more = [("ce_time", b"2026-01-01T00:00:00Z"), ("ce_colour", b"red"), ("ce_expirytime", b"2099-01-01T00:00:00Z")]
    await house.took(
        NewRecord("asks", None, b'{ "id":"p" , "n": 1.50e0 }'.replace(b"1.50e0", b"1")),
        NewRecord("asks", None, orjson.dumps(event), [("content-type", b"application/cloudevents+json")]),
        NewRecord("asks", None, b'{"id":"b"}', [*binary, *more]),
    )
    run = await house.mesh.publish("ask", {"id": "c"})
    await run.outcome(timeout_s=DEADLINE_S)
    plan = await house.plan()
    await Resend(house.mesh.log, house.mesh.topology).send(plan)
    await house.until(8)
    events = await requests_of(house.mesh.log, house.mesh.topology)
    originals = {event.id: event for event in events if event.extensions[-2:-1] != ("replayof",)}
    copies = {event.cause_id: event for event in events if event.id not in originals}
    assert set(originals) == set(copies) == {"p", "s", "b", "c"}
    for id, event_ in copies.items():
        assert (event_.data, event_.source) == (originals[id].data, originals[id].source), id
    assert (copies["b"].time, copies["b"].expiry_ms) == (originals["b"].time, None), "its deadline has passed"
    assert copies["b"].extensions == ("colour", "red", "replayof", originals["b"].run_id)


async def test_ordered_requests_keep_key_partition_and_order(house: House) -> None:
    await house.took(*(NewRecord("bids", b"k%d" % (n % 2), b'{"n": %d}' % n) for n in range(6)))
    await Resend(house.mesh.log, house.mesh.topology).send(await house.plan())
    await house.until(12)
    records = await records_of(house.mesh.log, "bids")
    for key in (b"k0", b"k1"):
        values = [record.value for record in records if record.key == key]
        assert values[:3] == values[3:]
        assert len({record.partition for record in records if record.key == key}) == 1
    events = await requests_of(house.mesh.log, house.mesh.topology)
    assert len({event.run_id.rpartition(":")[2] for event in events}) == 2, "new runs have the homes of the old ones"


async def test_requests_whose_ordering_key_is_gone_are_not_sent(house: House) -> None:
    await house.took(NewRecord("bids", b"k", b'{"n": 1}'), NewRecord("bids", None, b'{"n": 2}'))
    run = await house.mesh.publish("bid", {"n": 3}, key="k")
    await run.outcome(timeout_s=DEADLINE_S)
    for number, bounds in (await house.mesh.log.bounds("bids")).items():
        await house.mesh.log.trim(TopicPartition("bids", number), bounds.end)
    plan = await house.plan()
    assert len(plan.sendings) == 1, "the one without a key has no order to lose"
    assert plan.sendings[0].payload == b'{"n": 2}'
    assert [one.message for one in plan.obstacles] == [
        "topic bids has `order: key`, and the record with its key is not there"
    ] * 2


async def test_requests_of_one_run_are_one_run_again(house: House) -> None:
    house.gate.clear()
    await house.mesh.log.append([ask("a")])
    first = (await until_requested(house, 1))[0]
    await house.mesh.log.append([NewRecord("joins", None, b'{"n": 1}', [("ce_correlationid", first.run_id.encode())])])
    await house.until(2)
    plan = await house.plan()
    assert len({sending.run_id for sending in plan.sendings}) == 1
    house.gate.clear()
    await Resend(house.mesh.log, house.mesh.topology).send(plan)
    await house.until(4)
    assert len({event.run_id for event in await requests_of(house.mesh.log, house.mesh.topology)}) == 2


async def test_a_request_that_joined_a_run_needs_a_topic_that_says_join(house: House) -> None:
    run = await house.mesh.publish("ask", {"id": "a"})
    await run.outcome(timeout_s=DEADLINE_S)
    await house.mesh.publish("ask", {"id": "b"}, run_id=run.id)
    await until_requested(house, 2)
    plan = await house.plan()
    assert len(plan.sendings) == 1
    assert [one.message for one in plan.obstacles] == [
        "it joined the run of an earlier request, and topic asks does not say `join: true`"
    ]


async def test_removed_requests_are_told(house: House) -> None:
    await house.took(*(ask(f"a{n}") for n in range(6)))
    events = await requests_of(house.mesh.log, house.mesh.topology)
    inbox = house.mesh.topology.inbox
    last = max(bounds.end for bounds in (await house.mesh.log.bounds(inbox)).values())
    assert last > 1
    for number in range(3):
        await house.mesh.log.trim(TopicPartition(inbox, number), 1)
    found = await read_requests(house.mesh.log, house.mesh.topology, RequestChoice())
    assert len(found.requests) < len(events)
    assert found.gaps
    assert all("were removed from mesh.inbox:" in gap for gap in found.gaps)
    later = max(event.at_ms for event in events) + 1_000
    assert not (await read_requests(house.mesh.log, house.mesh.topology, RequestChoice(since_ms=later))).gaps


async def test_a_plan_has_a_limit(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REQUESTS_MAX", 2)
    await house.took(*(ask(f"a{n}") for n in range(3)))
    with pytest.raises(InvalidInput, match="more than 2 requests fit"):
        await house.plan()
    assert len((await house.plan(limit=2)).sendings) == 2


# ------------------------------------------------------------------------------------------------------ interruptions


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("appends", range(1, 8))
async def test_a_resend_that_died_anywhere_goes_on_with_exactly_the_rest(
    house: House, appends: int, after: bool
) -> None:
    """Planned in one append, then two for each request, which at this rate are sent one by one: 1 + 2 × 3."""
    await house.took(ask("a"), ask("b"), ask("c"))
    log, topology = house.mesh.log, house.mesh.topology
    dying: Any = Broken(log, appends, after=after)
    plan = await house.plan()
    with pytest.raises(LogUnavailable):
        await Resend(dying, topology, clock=Hasty()).send(plan, per_second=4.0)
    rest = await house.plan()
    assert len(rest.sendings) + len(rest.already_done) == 3
    await Resend(log, topology).send(rest)
    await house.until(6)
    assert len(await records_of(log, "asks")) == 6, "each once"
    ledger, _ = await Journal(log, topology).read()
    assert {ledger.status_of(step.letter).state for step in (await house.plan()).already_done} <= {SENT, DONE}
    assert (await house.plan()).sendings == []


async def test_the_rest_that_is_not_chosen_is_told(house: House) -> None:
    await house.took(ask("a"), ask("b"))
    dying: Any = Broken(house.mesh.log, 1, after=True)
    with pytest.raises(LogUnavailable):
        await Resend(dying, house.mesh.topology).send(await house.plan())
    plan = await house.plan(wanted=RecordFilter(where=Where('ask.id == "a"', {"ask"})))
    assert (len(plan.sendings), plan.unfinished) == (1, 1)
    assert plan.sendings[0].interrupted is not None


async def test_two_resends_at_the_same_time_send_each_request_once(house: House) -> None:
    await house.took(ask("a"), ask("b"), ask("c"))
    ann, bob = await house.plan(), await house.plan()
    resend = Resend(house.mesh.log, house.mesh.topology)
    reports = await asyncio.gather(resend.send(ann, by="ann"), resend.send(bob, by="bob"))
    assert sum(len(report.sent) for report in reports) == 3
    assert sum(len(report.elsewhere) for report in reports) == 3
    await house.until(6)


async def test_two_that_send_the_rest_of_an_interrupted_one_send_each_request_once(house: House) -> None:
    await house.took(ask("a"), ask("b"), ask("c"))
    log, topology = house.mesh.log, house.mesh.topology
    dying: Any = Broken(log, 1, after=True)
    with pytest.raises(LogUnavailable):
        await Resend(dying, topology).send(await house.plan())
    ann, bob = await house.plan(), await house.plan()
    assert all(sending.interrupted for sending in (*ann.sendings, *bob.sendings))
    resend = Resend(log, topology)
    reports = await asyncio.gather(resend.send(ann, by="ann"), resend.send(bob, by="bob"))
    assert sum(len(report.sent) for report in reports) == sum(len(report.elsewhere) for report in reports) == 3
    await house.until(6)


async def test_no_more_are_sent_than_the_rate_allows(house: House) -> None:
    await house.took(*(ask(id) for id in "abcdef"))
    clock, progress = asyncio.get_running_loop().time, list[int]()
    plan, began = await house.plan(), clock()
    report = await Resend(house.mesh.log, house.mesh.topology).send(plan, per_second=20, on_progress=progress.append)
    assert 0.25 <= clock() - began < 5
    assert (len(report.sent), progress) == (6, [5, 1])
