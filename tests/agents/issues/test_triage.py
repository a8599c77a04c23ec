import time
from typing import Any

import pytest

from agents.issues.events import IssueTriaged, Webhook
from agents.issues.triage import (
    area_of,
    code_language_of,
    kind_of,
    language_of,
    severity_of,
    triage,
)
from tests.agents.issues.webhooks import REPOSITORY, triaged_issue, triaged_pull


@pytest.mark.parametrize(
    ("title", "text", "labels", "kind"),
    [
        ("App crashes on start", "Steps to reproduce: open it. Traceback follows.", [], "bug"),
        ("fix(parser): off by one", "", [], "bug"),
        ("Add support for dark mode", "It would be nice to have.", [], "feature"),
        ("How do I configure a proxy?", "", [], "question"),
        ("Typo in the README", "", [], "docs"),
        ("Bump lodash from 4.17.20 to 4.17.21", "", ["dependencies"], "chore"),
        ("XSS in the comment form", "This vulnerability lets anybody run scripts.", [], "security"),
        ("Something", "", ["kind/bug"], "bug"),
        ("Absturz beim Start", "Es funktioniert nicht, Fehler in der Anzeige", [], "bug"),
        ("启动时崩溃", "出现错误", [], "bug"),
        ("hm", "", [], "other"),
    ],
)
def test_the_kind_follows_labels_prefix_and_words(title: str, text: str, labels: list[str], kind: str) -> None:
    assert kind_of(title, text, labels)[0] == kind


def test_confidence_is_zero_without_a_sign_and_grows_with_agreement() -> None:
    assert kind_of("hm", "", []) == ("other", 0.0)
    torn = kind_of("Crash in the docs example", "", [])[1]
    sure = kind_of("Crash: exception and traceback", "it fails", ["bug"])[1]
    assert 0 < torn < sure <= 1


@pytest.mark.parametrize(
    ("title", "text", "labels", "area"),
    [
        ("x", "", ["area: Parser"], "parser"),
        ("fix(wire/kafka): y", "", [], "wire-kafka"),
        ("Login button is broken", "the oauth token expires", [], "auth"),
        ("Slow queries", "the database needs 3 s; sql attached", [], "data"),
        ("hello", "world", [], "general"),
        ("x", "", ["area: ***"], "general"),
    ],
)
def test_the_area_follows_label_scope_and_words(title: str, text: str, labels: list[str], area: str) -> None:
    assert area_of(title, text, labels) == area


@pytest.mark.parametrize(
    ("kind", "text", "labels", "severity"),
    [
        ("bug", "a typo", ["P0"], "critical"),
        ("bug", "we are losing data", [], "critical"),
        ("bug", "it crashes", [], "high"),
        ("bug", "looks odd", [], "medium"),
        ("bug", "crashes", ["good first issue"], "low"),
        ("security", "tokens in the log", [], "high"),
        ("question", "how?", [], "low"),
    ],
)
def test_severity_follows_labels_words_and_kind(kind: Any, text: str, labels: list[str], severity: str) -> None:
    assert severity_of(kind, text, labels) == severity


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("The build is broken when I run it on my machine", "en"),
        ("Das Programm stürzt ab, wenn ich die Datei öffne", "de"),
        ("Le programme plante quand je lance la commande", "fr"),
        ("El programa no funciona cuando abro el archivo", "es"),
        ("O programa não funciona quando abro o arquivo", "pt"),
        ("Il programma non funziona quando apro il file", "it"),
        ("Het programma werkt niet als ik het bestand open", "nl"),
        ("Программа падает при запуске", "ru"),
        ("Програма падає під час запуску", "uk"),
        ("启动程序时出现错误 config.toml", "zh"),
        ("プログラムが動かない", "ja"),
        ("프로그램이 실행되지 않습니다", "ko"),
        ("TEST edit", "und"),
        ("", "und"),
        ("```\nthe and is are was it\n```", "und"),
    ],
)
def test_the_natural_language_is_found_by_script_or_small_words(text: str, language: str) -> None:
    assert language_of(text) == language


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("```python\nprint(1)\n```", "Python"),
        ("it fails in src/main.rs and lib/parse.rs", "Rust"),
        ("at com.example.Main.run(Main.java:17)", "Java"),
        ("goroutine 1 [running]:", "Go"),
        ("Cannot read properties of undefined", "JavaScript"),
        ("nothing of the kind, see README.md", ""),
    ],
)
def test_the_programming_language_is_found_by_fences_traces_and_files(text: str, language: str) -> None:
    assert code_language_of(text) == language


async def test_the_repository_gives_the_language_if_the_text_does_not() -> None:
    assert (await triaged_issue("Hello", "")).code_language == "Python"


async def test_an_issue_becomes_issue_triaged_with_a_name_that_stays() -> None:
    opened = await triaged_issue("Crash", "at start", number=12, html_url="https://github.com/brewlab/teapot/issues/12")
    labelled = await triaged_issue("Crash", "at start", number=12, action="labeled", labels=["bug"])
    assert opened.item == labelled.item == "brewlab/teapot#12"
    assert (opened.author, opened.url) == ("mira", "https://github.com/brewlab/teapot/issues/12")


async def test_a_comment_brings_its_own_words_and_author() -> None:
    payload = {
        "issue": {"number": 3, "title": "Crash", "body": "It crashes", "user": {"login": "mira"}},
        "comment": {"body": "me too", "user": {"login": "ada", "type": "Bot"}, "author_association": "MEMBER"},
        "repository": REPOSITORY,
    }
    found = await triage(Webhook(event="issue_comment", action="created", payload=payload))
    assert isinstance(found, IssueTriaged)
    assert (found.said, found.body, found.author) == ("me too", "It crashes", "ada")
    assert (found.author_is_bot, found.association) == (True, "member")


async def test_discussions_and_commit_comments_have_names_of_their_own() -> None:
    discussion = {"discussion": {"number": 4, "title": "t"}, "repository": REPOSITORY}
    comment = {"comment": {"commit_id": "6113728f27ae82c7b1a1", "body": "nice"}, "repository": REPOSITORY}
    found = [
        await triage(Webhook(event="discussion", payload=discussion)),
        await triage(Webhook(event="commit_comment", payload=comment)),
    ]
    assert [f.item for f in found] == ["brewlab/teapot/discussions/4", "brewlab/teapot@6113728f27ae"]


async def test_a_pull_request_has_counts_branches_and_known_files() -> None:
    found = await triaged_pull(
        "Touch `a/b.py`",
        "and docs/x.md but not 1.5.2 or https://example.org/index.html",
        draft=True,
        additions=5,
        deletions=None,
        changed_files="many",
        head={"ref": "patch", "repo": {"fork": True}},
        base={"ref": "main"},
        files=[{"filename": "c.go"}, None, {"filename": 3}],
    )
    assert found.paths[:1] == ["c.go"]
    assert {"a/b.py", "docs/x.md"} <= set(found.paths)
    assert (found.draft, found.additions, found.deletions, found.changed_files) == (True, 5, None, None)
    assert (found.head, found.base, found.from_fork) == ("patch", "main", True)


@pytest.mark.parametrize("payload", [None, [], "text", 5, {}, {"issue": None}, {"issue": {"title": 5, "labels": [1]}}])
async def test_an_issue_event_without_an_issue_is_triaged_as_other(payload: Any) -> None:
    found = await triage(Webhook(event="issues", payload=payload))
    assert (found.kind, found.kind_confidence, found.number) == ("other", 0.0, 0)


async def test_hostile_texts_take_little_time() -> None:
    texts = [
        "a/" * 4_000,
        "`\n" * 4_000,
        "a.a." * 2_000,
        "```" * 2_700,
        "x" * 8_000,
        "(" * 8_000,
        "a-" * 4_000,
        "\n1." * 2_600,
    ]
    for text in texts:
        begun = time.process_time()
        await triaged_issue(text[:300], text)
        await triaged_pull(text[:300], text)
        assert time.process_time() - begun < 1.0, text[:10]
