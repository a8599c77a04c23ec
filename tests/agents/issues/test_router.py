from typing import Any

from agents.issues.events import IssueCompared, IssueRouted, IssueScreened, NeedsHuman
from agents.issues.router import route
from tests.agents.issues.webhooks import triaged_issue

COMPARED = IssueCompared(fingerprint="f00", comparable=True, lookalikes_key="issues/lookalikes/x")


async def routed(*args: Any, spam: float = 0.0, **kwargs: Any) -> IssueRouted | NeedsHuman:
    return await route(await triaged_issue(*args, **kwargs), IssueScreened(score=spam, signals=["selling"]), COMPARED)


async def test_a_clear_bug_goes_to_the_team_of_its_area() -> None:
    found = await routed("Login button is broken", "Crash when I sign in with oauth, version 2.1", labels=["bug"])
    assert isinstance(found, IssueRouted)
    assert (found.team, found.queue, found.kind) == ("security", "urgent", "bug")
    assert found.missing == ["expected"]
    assert (found.fingerprint, found.lookalikes_key) == ("f00", "issues/lookalikes/x")


async def test_an_unclear_text_needs_a_human_and_says_why() -> None:
    found = await routed("hm", "...")
    assert isinstance(found, NeedsHuman)
    assert found.confidence == 0.0
    assert found.reasons[-1] == "confidence 0.0 is below 0.4"


async def test_possible_spam_needs_a_human_and_sure_spam_goes_to_moderation() -> None:
    maybe, sure = await routed("Crash", labels=["bug"], spam=0.6), await routed("Crash", labels=["bug"], spam=0.9)
    assert isinstance(maybe, NeedsHuman)
    assert maybe.team == "moderators"
    assert isinstance(sure, IssueRouted)
    assert (sure.team, sure.queue, sure.confidence) == ("moderators", "moderation", 0.9)


async def test_security_goes_to_security_whatever_the_area() -> None:
    found = await routed(
        "Vulnerability in the docs page", "XSS, an exploit is known", labels=["area: docs", "security"]
    )
    assert isinstance(found, IssueRouted)
    assert (found.area, found.team, found.queue) == ("docs", "security", "urgent")


async def test_only_bugs_are_asked_for_steps() -> None:
    found = await routed("Add support for tea", "Please add it", labels=["feature"])
    assert isinstance(found, IssueRouted)
    assert found.missing == []
