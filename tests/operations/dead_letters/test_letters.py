"""Dead letters of a whole mesh: an agent fails for good, is mended, and the run goes on where it stood."""

import asyncio
import os
import pwd
import socket
from collections.abc import Sequence
from typing import Any

import pytest

from mesh.adapters.ports import Appended, Refused
from mesh.core.dead_letters.patch import parse_patch
from mesh.core.dead_letters.redrive_log import DONE, DROPPED, REFUSED, SENT
from mesh.core.errors import InvalidInput, LogUnavailable, NotFound
from mesh.core.protocol.record import Headers, NewRecord
from mesh.core.selection.where import Where
from mesh.operations.dead_letters import DeadLetters, RedriveOptions, Selection, letter_from, letter_json, whoami
from tests.operations.broken_log import Broken, Hasty
from tests.operations.dead_letters.conftest import DEADLINE_S, Shop


async def test_a_run_goes_on_where_it_stood_and_ends_once_more_completed(shop: Shop) -> None:
    (run_id,) = await shop.failed("a", n=7)
    shop.broken = False
    assert await shop.sent() == ["completed"]
    assert shop.asked == [("first", "a"), ("second", "a"), ("second", "a"), ("second", "a")], "the first is done"
    before, after = await shop.outcomes(run_id)
    assert (before.ending, [result.type for result in before.results]) == ("failed", ["noted"])
    assert (after.ending, after.failures) == ("completed", ())
    assert [(r.type, r.data) for r in after.results] == [("noted", {"id": "a"}), ("answer", {"id": "a", "n": 7})]
    (case,) = await shop.letters()
    assert (case.status.state, str(case.status)) == (DONE, "redriven 1×, completed")
    (entry,) = await shop.dead.entries(case.letter.id)
    assert (entry.by, entry.run_id, entry.way, entry.n) == ("ann", run_id, "task", 1)
    assert entry.place.startswith("mesh.inbox:")


async def test_the_same_redrive_twice_sends_nothing_the_second_time(shop: Shop) -> None:
    await shop.failed("a", "b")
    shop.broken = False
    assert await shop.sent() == ["completed"] * 2
    plan = await shop.dead.plan(await shop.letters())
    assert (plan.sendings, [settled.message for settled in plan.already_done]) == ([], ["redriven 1×, completed"] * 2)
    await shop.dead.redrive(plan, by="bob")
    assert len(await shop.on_inbox("redriven")) == 2


async def test_a_plan_changes_nothing(shop: Shop) -> None:
    await shop.failed("a")
    plan = await shop.dead.plan(await shop.letters())
    assert len(plan.sendings) == 1
    assert await shop.on_inbox("redriven") == []
    assert (await shop.letters())[0].status.state == "new"


async def test_what_fails_again_is_a_new_letter_that_knows_how_often(shop: Shop) -> None:
    (run_id,) = await shop.failed("a")
    for before in range(3):
        newest = [case for case in await shop.letters() if case.status.open]
        assert [case.status.before for case in newest] == [before]
        assert await shop.sent(names=(newest[0].letter.id,)) == ["failed"]
    (fourth,) = [case for case in await shop.letters() if case.status.open]
    plan = await shop.dead.plan([fourth])
    assert [obstacle.message for obstacle in plan.obstacles] == ["it was redriven 3 times"]
    shop.broken = False
    report = await shop.dead.redrive(await shop.dead.plan([fourth], RedriveOptions(force="mended")), by="ann")
    assert [entry.result for entry in await shop.dead.wait(report)] == ["completed"]
    assert (await shop.dead.entries(fourth.letter.id))[0].reason == "mended"
    assert [outcome.ending for outcome in await shop.outcomes(run_id)] == ["failed"] * 4 + ["completed"]


async def test_a_payload_is_changed_on_the_way_and_kept_in_the_ledger(shop: Shop) -> None:
    (run_id,) = await shop.failed("a", n=1)
    how = RedriveOptions(patches=(parse_patch("n=100"),))
    report = await shop.dead.redrive(await shop.dead.plan(await shop.letters(), how))
    (entry,) = await shop.dead.wait(report, timeout_s=DEADLINE_S)
    assert (entry.result, entry.data) == ("completed", b'{"id":"a","n":100}')
    assert (await shop.outcomes(run_id))[-1].results[-1].data == {"id": "a", "n": 100}


async def test_a_run_begins_again_as_another_one(shop: Shop) -> None:
    (run_id,) = await shop.failed("a")
    shop.broken = False
    report = await shop.dead.redrive(await shop.dead.plan(await shop.letters(), RedriveOptions(as_new=True)))
    (entry,) = await shop.dead.wait(report, timeout_s=DEADLINE_S)
    assert (entry.result, entry.way, entry.run_id != run_id) == ("completed", "new", True)
    assert shop.asked[-2:] == [("first", "a"), ("second", "a")]
    assert len(await shop.outcomes(run_id)) == 1
    assert len((await shop.outcomes(entry.run_id))[0].results) == 2


async def test_a_hop_that_was_refused_is_made_all_the_same(shop: Shop) -> None:
    run = await shop.mesh.publish("go", {"lap": 1})
    assert (await run.outcome(timeout_s=DEADLINE_S)).ending == "stopped"
    assert [case.letter.reason for case in await shop.letters()] == ["visits"]
    shop.broken = False
    report = await shop.dead.redrive(await shop.dead.plan(await shop.letters()))
    (entry,) = await shop.dead.wait(report, timeout_s=DEADLINE_S)
    assert (entry.way, entry.result, shop.asked[-1]) == ("hop", "completed", ("runner", 3))
    assert [result.data for result in (await shop.outcomes(run.id))[-1].results] == [{"lap": 3}]


async def test_a_record_that_intake_rejected_is_fixed_and_goes_to_its_topic(shop: Shop) -> None:
    await shop.mesh.log.append([NewRecord("asks", b"k", b'{"n":5}', [("mine", b"1")]), NewRecord("loose", None, b"{")])
    async with asyncio.timeout(DEADLINE_S):
        while len(cases := await shop.letters()) < 2:  # noqa: ASYNC110  # polls the log
            await asyncio.sleep(0.005)
    plan = await shop.dead.plan(cases)
    assert (plan.sendings, len(plan.obstacles)) == ([], 2)
    assert {obstacle.remedy for obstacle in plan.obstacles} == {"Fix it with --set PATH=VALUE or --edit"}
    shop.broken = False
    (bad_id,) = await shop.letters(reason="bad_id")
    how = RedriveOptions(patches=(parse_patch("id=mended"),))
    report = await shop.dead.redrive(await shop.dead.plan([bad_id], how))
    (entry,) = await shop.dead.wait(report, timeout_s=DEADLINE_S)
    assert (entry.result, entry.topic, entry.way) == ("completed", "asks", "topic")
    assert (await shop.outcomes(entry.run_id))[0].raw["request"]["ids"] == ["mended"]
    (unparseable,) = await shop.letters(reason="unparseable")
    report = await shop.dead.redrive(await shop.dead.plan([unparseable], RedriveOptions(data=b'{"n":3}')))
    (entry,) = await shop.dead.wait(report, timeout_s=DEADLINE_S)
    assert (entry.result, shop.asked[-1]) == ("completed", ("third", 3)), "whose id is its new place"


async def test_a_run_that_is_not_remembered_is_reported_as_the_result(shop: Shop) -> None:
    await shop.failed("a")
    (case,) = await shop.letters()
    line = letter_json(case.letter)
    for header in line["headers"]:
        if header["name"] == "mesh-dlq-run":
            header["value"] = "forgotten"
    letter, _ = letter_from(line)
    report = await shop.dead.redrive(await shop.dead.plan(await shop.dead.with_statuses([(letter, False)])))
    (entry,) = await shop.dead.wait(report, timeout_s=DEADLINE_S)
    assert entry.result == "refused: unknown_run"


async def test_results_are_reported_later_to_callers_that_did_not_wait(shop: Shop) -> None:
    await shop.failed("a", "b")
    shop.broken = False
    report = await shop.dead.redrive(await shop.dead.plan(await shop.letters()))
    assert [entry.state for entry in report.sent] == [SENT, SENT]
    async with asyncio.timeout(DEADLINE_S):
        while True:
            cases = await shop.dead.results(await shop.letters())
            if all(case.status.state == DONE for case in cases):
                break
            await asyncio.sleep(0.005)
    assert {str(case.status) for case in cases} == {"redriven 1×, completed"}
    plan = await shop.dead.plan(await shop.letters())
    assert {settled.message for settled in plan.already_done} == {"redriven 1×, completed"}
    assert {case.status.state for case in await shop.letters()} == {SENT}, "looking writes nothing"


# --------------------------------------------------------------------------------------------------- interruptions


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("appends", range(1, 8))
async def test_a_redrive_that_died_anywhere_goes_on_with_exactly_the_rest(
    shop: Shop, appends: int, after: bool
) -> None:
    """Planned in one append, then two for each letter, which at this rate are sent one by one: 1 + 2 × 3."""
    await shop.failed("a", "b", "c")
    shop.broken = False
    dying = DeadLetters(Broken(shop.mesh.log, appends, after=after), shop.mesh.topology, clock=Hasty())
    plan = await dying.plan(await dying.select())
    with pytest.raises(LogUnavailable):
        await dying.redrive(plan, by="ann", per_second=4.0)
    report = await shop.dead.redrive(await shop.dead.plan(await shop.letters()), by="bob")
    assert len(await shop.on_inbox("redriven")) == len(set(await shop.on_inbox("redriven"))) == 3
    rest = await shop.dead.plan(await shop.letters())
    assert (rest.sendings, rest.obstacles, len(rest.already_done)) == ([], [], 3)
    for entry in report.sent:
        assert entry.place.startswith("mesh.inbox:"), "also of those that had been sent"
    assert {entry.result for entry in await shop.dead.wait(report, timeout_s=DEADLINE_S)} <= {"completed"}
    for case in await shop.letters():
        async with asyncio.timeout(DEADLINE_S):
            while (await shop.outcomes(case.letter.run_id))[-1].ending != "completed":  # noqa: ASYNC110
                await asyncio.sleep(0.005)


async def test_a_waiting_caller_also_gets_results_from_before_the_redrive_was_resumed(shop: Shop) -> None:
    (run_id,) = await shop.failed("a")
    shop.broken = False
    dying = DeadLetters(Broken(shop.mesh.log, 2, after=True), shop.mesh.topology)
    with pytest.raises(LogUnavailable):
        await dying.redrive(await dying.plan(await dying.select()))
    async with asyncio.timeout(DEADLINE_S):
        while len(await shop.outcomes(run_id)) < 2:  # noqa: ASYNC110  # polls the log
            await asyncio.sleep(0.005)
    assert await shop.sent() == ["completed"]
    assert len(await shop.on_inbox("redriven")) == 1


async def test_two_concurrent_redrives_send_each_letter_once(shop: Shop) -> None:
    await shop.failed("a", "b", "c")
    cases = await shop.letters()
    ann, bob = await shop.dead.plan(cases), await shop.dead.plan(cases[1:])
    reports = await asyncio.gather(shop.dead.redrive(ann, by="ann"), shop.dead.redrive(bob, by="bob"))
    assert sum(len(report.sent) for report in reports) == 3
    assert sum(len(report.elsewhere) for report in reports) == 2
    assert len(await shop.on_inbox("redriven")) == 3


async def test_no_more_are_sent_than_the_rate_allows(shop: Shop) -> None:
    await shop.failed(*"abcdef")
    clock = asyncio.get_running_loop().time
    began, progress = clock(), list[int]()
    report = await shop.dead.redrive(
        await shop.dead.plan(await shop.letters()), per_second=20, on_progress=progress.append
    )
    assert 0.25 <= clock() - began < 5
    assert (len(report.sent), progress) == (6, [5, 1])


async def test_what_the_log_refuses_is_reported_and_may_be_sent_again(shop: Shop) -> None:
    await shop.failed("a")

    class Refusing(Broken):
        async def append(self, records: Sequence[NewRecord]) -> Sequence[Appended | Refused]:
            if records[0].topic == "mesh.inbox":
                return [Refused("unauthorized", "no") for _ in records]
            return await self._log.append(records)

    refusing = DeadLetters(Refusing(shop.mesh.log, 0, after=False), shop.mesh.topology)
    report = await refusing.redrive(await refusing.plan(await refusing.select()))
    assert [(e.state, e.result) for e in report.refused] == [(REFUSED, "unauthorized: no")]
    (case,) = await shop.letters()
    assert (case.status.open, str(case.status)) == (True, "redriven 1×, unauthorized: no")
    shop.broken = False
    assert await shop.sent() == ["completed"]


# ----------------------------------------------------------------------------------------------------------- choosing


async def test_letters_are_chosen_by_all_that_is_known_of_them(shop: Shop) -> None:
    run_a, run_b = await shop.failed("a", n=1), await shop.failed("b", n=2)
    everything = await shop.letters()
    assert [case.letter.run_id for case in everything] == [*run_a, *run_b]
    first, second = everything
    only_second: list[dict[str, Any]] = [
        {"run": run_b[0][:10]},
        {"where": Where("n > 1")},
        {"where": Where('half.id == "b"', ["half"])},
        {"names": (second.letter.id[:9],)},
        {"names": (second.letter.position,)},
    ]
    for chosen in only_second:
        assert await shop.letters(**chosen) == [second], chosen
    both: list[dict[str, Any]] = [{"agent": "second"}, {"reason": "exception"}, {"type": "half"}]
    for chosen in (*both, {"since_ms": first.letter.at_ms}):
        assert await shop.letters(**chosen) == everything, chosen
    none: list[dict[str, Any]] = [{"agent": "first"}, {"until_ms": first.letter.at_ms}, {"where": Where("n > 2")}]
    for chosen in none:
        assert await shop.letters(**chosen) == [], chosen
    assert [case.letter for case in await shop.letters(names=(first.letter.id, first.letter.position))] == [
        first.letter
    ]


async def test_a_letter_that_was_written_twice_is_there_once(shop: Shop) -> None:
    await shop.failed("a")
    (case,) = await shop.letters()
    record = case.letter.record
    await shop.mesh.log.append([NewRecord(record.topic, record.key, record.value, record.headers)])
    assert await shop.letters() == [case]


async def test_a_name_of_no_letter_or_of_several_is_refused(shop: Shop) -> None:
    await shop.failed("a", "b")
    with pytest.raises(NotFound, match="no dead letter 'zz'"):
        await shop.letters(names=("zz",))
    with pytest.raises(InvalidInput, match="2 dead letters begin so"):
        await shop.letters(names=("",))


async def test_dropped_letters_are_left_alone_until_wanted_again(shop: Shop) -> None:
    await shop.failed("a")
    (entry,) = await shop.dead.drop(await shop.letters(), by="ann", reason="test data")
    assert (entry.state, entry.reason) == (DROPPED, "test data")
    cases = await shop.letters()
    assert [str(case.status) for case in cases] == ["dropped"]
    assert await shop.dead.drop(cases) == []
    assert len((await shop.dead.plan(cases)).already_done) == 1
    assert len((await shop.dead.plan(cases, RedriveOptions(again=True))).sendings) == 1


async def test_letters_come_back_from_an_export_changed_or_not(shop: Shop) -> None:
    (run_id,) = await shop.failed("a", n=1)
    (case,) = await shop.letters()
    line = letter_json(case.letter)
    line["payload"] = line["payload"].replace('"n":1', '"n":100')
    cases = await shop.dead.with_statuses([letter_from(line)])
    report = await shop.dead.redrive(await shop.dead.plan(cases))
    (entry,) = await shop.dead.wait(report, timeout_s=DEADLINE_S)
    assert (entry.result, entry.data) == ("completed", b'{"id":"a","n":100}')
    assert (await shop.outcomes(run_id))[-1].results[-1].data == {"id": "a", "n": 100}


async def test_bytes_that_a_letter_has_not_are_taken_from_where_they_lie(shop: Shop) -> None:
    (run_id,) = await shop.failed("a", n=4)
    record = (await shop.letters())[0].letter.record
    topic, partition = "asks", next(n for n, b in (await shop.mesh.log.bounds("asks")).items() if not b.end)
    await shop.mesh.log.append([NewRecord(topic, b"k", b'{"id":"b"}', [("ce_type", b"ask")], partition)])

    async def pointer(id: bytes, headers: Headers, **changed: bytes) -> None:
        found = {**dict(headers), "mesh-dlq-id": id, "mesh-dlq-omitted": b"too large"}
        found |= {f"__dlq.errors.{name}": value for name, value in changed.items()}
        await shop.mesh.log.append([NewRecord(record.topic, None, None, list(found.items()))])

    await pointer(b"whole", record.headers)
    await pointer(b"lost", record.headers, offset=b"99")
    await pointer(b"asked", (), topic=b"asks", partition=b"%d" % partition, offset=b"0")
    shop.broken = False
    assert await shop.sent(names=("whole",)) == ["completed"]
    assert (await shop.outcomes(run_id))[-1].results[-1].data == {"id": "a", "n": 4}
    plan = await shop.dead.plan(await shop.letters(names=("lost",)))
    assert ["its bytes are not in it" in obstacle.message for obstacle in plan.obstacles] == [True]
    assert str(plan.obstacles[0].letter.origin).endswith(":99")
    plan = await shop.dead.plan(await shop.letters(names=("asked",)))
    assert "specversion is None" in plan.obstacles[0].message, "with the headers that lie there"


async def test_letters_of_another_system_go_to_the_topic_whence_they_came(shop: Shop) -> None:
    from mesh.adapters.ports import TopicSpec

    await shop.mesh.log.create_topics([TopicSpec("loose.DLT", 1)])
    headers = [("kafka_dlt-original-topic", b"loose"), ("kafka_dlt-original-partition", b"\0\0\0\1")]
    await shop.mesh.log.append([NewRecord("loose.DLT", b"k", b'{"n":8}', headers)])
    spring = DeadLetters(shop.mesh.log, shop.mesh.topology, topic="loose.DLT")
    report = await spring.redrive(await spring.plan(await spring.select()))
    (entry,) = await spring.wait(report, timeout_s=DEADLINE_S)
    assert (entry.result, entry.place[:8], shop.asked) == ("completed", "loose:1:", [("third", 8)])
    assert [str(case.status) for case in await spring.select(Selection())] == ["redriven 1×, completed"]


def test_a_user_without_a_name_stands_in_the_ledger_by_number(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    there = f"@{socket.gethostname()}"
    assert whoami() == pwd.getpwuid(os.getuid()).pw_name + there

    def no_entry(uid: int) -> None:
        raise KeyError(uid)

    monkeypatch.setattr(pwd, "getpwuid", no_entry)
    assert whoami() == f"{os.getuid()}{there}"
