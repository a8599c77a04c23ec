from typing import Any

import pytest

from agents.issues.events import NeedsHuman, PullRouted, PullScreened
from agents.issues.pr_router import route
from agents.issues.reviewer import review
from tests.agents.issues.webhooks import triaged_pull


async def routed(title: str, *, spam: float = 0.0, **fields: Any) -> PullRouted | NeedsHuman:
    pull = await triaged_pull(title, "text", **{"additions": 3, "deletions": 1, "changed_files": 1, **fields})
    return await route(pull, PullScreened(score=spam, signals=["selling"]), await review(pull))


@pytest.mark.parametrize(
    ("fields", "queue"),
    [
        ({}, "review"),
        ({"draft": True}, "waiting"),
        ({"state": "closed"}, "done"),
        ({"state": "closed", "merged": True}, "done"),
    ],
)
async def test_the_queue_follows_the_state(fields: dict[str, Any], queue: str) -> None:
    found = await routed("fix(ui): crash of the button", **fields)
    assert isinstance(found, PullRouted)
    assert (found.queue, found.team, found.size) == (queue, "frontend", "xs")


async def test_an_unclear_pull_request_needs_a_human() -> None:
    found = await routed("hm", additions=None)
    assert isinstance(found, NeedsHuman)
    assert found.reasons[-1] == "confidence 0.0 is below 0.4"


async def test_possible_spam_needs_a_human_and_sure_spam_goes_to_moderation() -> None:
    maybe, sure = await routed("fix: x", spam=0.5), await routed("fix: x", spam=0.8)
    assert isinstance(maybe, NeedsHuman)
    assert isinstance(sure, PullRouted)
    assert (sure.queue, sure.team) == ("moderation", "moderators")
