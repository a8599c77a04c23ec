import pytest

from agents.issues.events import IssueScreened, PullScreened
from agents.issues.spam import spam
from tests.agents.issues.webhooks import triaged_issue, triaged_pull


async def test_an_honest_report_is_clean() -> None:
    found = await spam(
        await triaged_issue("Crash at start", "It crashes when I open an empty file, see https://a.org/x")
    )
    assert isinstance(found, IssueScreened)
    assert found.score < 0.2


@pytest.mark.parametrize(
    ("title", "body", "signal"),
    [
        ("Best price", "buy followers", "selling"),
        ("AIRDROP", "connect your wallet", "crypto lure"),
        ("Fixed", "download this fix", "malware lure"),
        ("You idiots", "", "abuse"),
        ("Look", "https://bit.ly/x", "shady link"),
        ("Look", "https://good.example/ https://tea.top", "shady link"),
        ("A", "https://a.b https://c.d https://e.f https://g.h", "many links"),
        ("see", "https://a.b/c", "mostly links"),
        ("THIS IS ALL WRONG", "AND NOBODY EVER LISTENS TO ME", "shouting"),
        ("aaaaaaaaaaaaaaaaaaa", "", "repetition"),
        ("cheap", "tea " * 40 + "kettle " * 40, "repetition"),
        ("a\u200bb", "", "invisible characters"),
        ("hello", " ".join(f"@user{n}" for n in range(12)), "mass mention"),
        ("", "...", "empty"),
    ],
)
async def test_every_signal_is_named(title: str, body: str, signal: str) -> None:
    found = await spam(await triaged_issue(title, body))
    assert signal in found.signals


async def test_a_plain_scam_is_sure() -> None:
    found = await spam(await triaged_issue("CLAIM YOUR TOKENS", "Airdrop! Connect your wallet: https://bit.ly/x"))
    assert found.score >= 0.8


async def test_members_get_half_and_bots_nothing() -> None:
    text = "connect your wallet https://bit.ly/x and more words of an honest sentence"
    stranger = await spam(await triaged_issue(text))
    member = await spam(await triaged_issue(text, author_association="MEMBER"))
    bot = await spam(await triaged_issue(text, user={"login": "dependabot[bot]", "type": "Bot"}))
    assert bot.score == 0 < member.score <= stranger.score / 2 + 0.01


async def test_a_pull_request_gets_an_answer_of_its_own_type() -> None:
    assert isinstance(await spam(await triaged_pull("Update README", "typo")), PullScreened)
