from typing import Any

import pytest

from agents.issues.events import IssueRouted
from agents.issues.reply import GREETINGS, KINDS, QUESTIONS, reply

ROUTED = IssueRouted(
    item="brewlab/teapot#1", repository="brewlab/teapot", event="issues", action="opened", title="Crash", url="u",
    day="2024-05-06", kind="bug", area="ui", severity="high", team="frontend", confidence=0.8, reasons=[],
    queue="urgent", author="mira", author_is_bot=False, language="de", code_language="", missing=["steps"],
    fingerprint="f", lookalikes_key="k",
)  # fmt: skip


def issue(**changes: Any) -> IssueRouted:
    return ROUTED.model_copy(update=changes)


async def test_a_new_bug_is_thanked_for_in_its_language_and_asked_for_what_is_missing() -> None:
    drafted = await reply(issue())
    assert drafted is not None
    assert drafted.text.startswith("Danke für die Meldung, @mira!")
    assert QUESTIONS["steps"] in drafted.text
    assert QUESTIONS["version"] not in drafted.text
    assert drafted.item == "brewlab/teapot#1"


@pytest.mark.parametrize(
    "changes",
    [{"action": "labeled"}, {"event": "issue_comment"}, {"author_is_bot": True}, {"queue": "moderation"}],
)
async def test_nothing_is_drafted_where_no_answer_is_due(changes: dict[str, Any]) -> None:
    assert await reply(issue(**changes)) is None


async def test_an_unknown_language_is_answered_in_english() -> None:
    drafted = await reply(issue(language="und"))
    assert drafted is not None
    assert (drafted.language, drafted.text[:9]) == ("en", "Thank you")


async def test_a_security_report_is_not_discussed() -> None:
    drafted = await reply(issue(kind="security", missing=["steps"]))
    assert drafted is not None
    assert "Report a vulnerability" in drafted.text
    assert QUESTIONS["steps"] not in drafted.text


async def test_a_strange_author_is_not_mentioned() -> None:
    drafted = await reply(issue(author="@everyone **x**"))
    assert drafted is not None
    assert "everyone" not in drafted.text


@pytest.mark.parametrize("language", sorted(GREETINGS))
@pytest.mark.parametrize("kind", sorted(KINDS))
async def test_every_kind_in_every_language_has_an_answer(kind: str, language: str) -> None:
    drafted = await reply(issue(kind=kind, language=language, area="general"))
    assert drafted is not None
    assert "{" not in drafted.text
