"""Results of letters that were sent again, and of those that were sent once too often."""

import asyncio

import pytest

from mesh.core.dead_letters.redrive_log import DONE, SENT
from mesh.core.errors import WaitTimeout
from mesh.core.protocol.record import Headers
from mesh.operations.dead_letters import RedriveOptions
from tests.operations.dead_letters.conftest import DEADLINE_S, Shop


async def test_waiting_has_an_end(shop: Shop) -> None:
    await shop.failed("a")
    shop.slow.set()
    report = await shop.dead.redrive(await shop.dead.plan(await shop.letters()))
    async with asyncio.timeout(DEADLINE_S):
        await shop.working.wait()
    with pytest.raises(WaitTimeout, match=r"1 of 1 letters have no result .*`mesh run show ID` shows what"):
        await shop.dead.wait(report, timeout_s=0.2)
    plan = await shop.dead.plan(await shop.letters(), RedriveOptions(again=True))
    assert [(o.message, plan.sendings) for o in plan.obstacles] == [("its task was sent again and is under way", [])]
    shop.slow.clear()


async def test_waiting_for_a_mesh_that_is_down_reports_that_it_has_no_consumer(shop: Shop) -> None:
    await shop.failed("a")
    report = await shop.dead.redrive(await shop.dead.plan(await shop.letters()))
    far = report._replace(sent=[report.sent[0]._replace(place="mesh.inbox:0:99999", letter="other")])
    with pytest.raises(WaitTimeout, match="1 of them are unread: is `mesh up` running"):
        await shop.dead.wait(far, timeout_s=0.2)


# ------------------------------------------------------------------------------------------------ sent once too often


async def test_a_letter_whose_task_failed_again_names_the_one_that_stands_for_it(shop: Shop) -> None:
    await shop.failed("a")
    (first,) = await shop.letters()
    for _ in range(2):
        (newest,) = [case for case in await shop.letters() if case.status.open]
        assert await shop.sent(names=(newest.letter.id,)) == ["failed"]
    (newest,) = [case for case in await shop.letters() if case.status.open]
    for how in (RedriveOptions(again=True), RedriveOptions(again=True, force="I want it")):
        plan = await shop.dead.plan([first], how)
        (obstacle,) = plan.obstacles
        name = newest.letter.id[:12]
        assert obstacle.message == f"its task was sent again and failed again: letter {name} stands for it now"
        assert obstacle.remedy == f"`mesh dead redrive {name}`, or begin a new run with --as-new"
        assert plan.sendings == []
    assert len((await shop.dead.plan([first], RedriveOptions(again=True, as_new=True))).sendings) == 1
    shop.broken = False
    assert await shop.sent(names=(newest.letter.id,)) == ["completed"]
    for case in (first, newest):
        (obstacle,) = (await shop.dead.plan([case], RedriveOptions(again=True))).obstacles
        assert obstacle.message == "its task was sent again and is no failure of its run any more"
        assert obstacle.remedy == "Begin a new run with --as-new"


async def test_a_redrive_without_effect_is_reported_and_does_not_count(shop: Shop) -> None:
    """As when two send it at once, and each has planned before the other."""
    await shop.failed("a")
    (case,) = await shop.letters()
    early = await shop.dead.plan([case])
    assert await shop.sent() == ["failed"]
    (sending,) = early.sendings
    records = [record._replace(headers=_renamed(record.headers, "r1", "r2")) for record in sending.records]
    late = sending._replace(n=2, records=tuple(records), ids=(sending.ids[0].replace(":r1", ":r2"),))
    report = await shop.dead.redrive(early._replace(sendings=[late], ledger_end=early.ledger_end + 9))
    assert [entry.key[-3:] for entry in report.sent] == [":r2"]
    (listed,) = await shop.dead.results(await shop.letters(names=(case.letter.id,)))
    async with asyncio.timeout(DEADLINE_S):
        while listed.status.state == SENT:
            (listed,) = await shop.dead.results(await shop.letters(names=(case.letter.id,)))
    assert str(listed.status) == "redriven 2×, refused: nothing_to_redrive"
    (entry,) = await shop.dead.wait(report, timeout_s=DEADLINE_S)
    assert (entry.state, entry.result) == (DONE, "refused: nothing_to_redrive")
    (after,) = await shop.letters(names=(case.letter.id,))
    assert (after.status.n, after.status.without_effect) == (2, 1)


def _renamed(headers: Headers, old: str, new: str) -> Headers:
    return [(name, value and value.replace(old.encode(), new.encode())) for name, value in headers]
