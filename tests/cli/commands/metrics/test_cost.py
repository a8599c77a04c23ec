"""`mesh cost`: what agents reported, in text and as JSON."""

from pathlib import Path

import pytest

from tests.cli.conftest import Cli

SPENDER = """

class Priced(Payload, type="priced"):
    text: str = ""


@agent
async def spend(said: WordSaid, context: Context) -> Priced:
    context.spend(usd="0.0123", tokens=321)
    return Priced()
"""


@pytest.fixture
def spender(project: Cli) -> Cli:
    """A project with an agent that spends."""
    folder: Path = project.folder
    file = folder / "topics.yaml"
    text = file.read_text().replace("woken, word.heard]", "woken, word.heard, priced]")
    file.write_text(text + '  spender: {run: "desk:spend", on: word.said, emits: priced, timeout: 5s}\n')
    (folder / "desk.py").write_text((folder / "desk.py").read_text() + SPENDER)
    return project


def test_what_agents_reported_by_each_name(spender: Cli) -> None:
    with spender.up():
        for number in range(2):
            done = spender("publish", "word.said", '{"word":"tea"}', "--run-id", f"tea-{number}", "--wait")
            assert done.code == 0, done
    row, total = spender("cost", "--json").rows
    common = {"runs": 2, "answers": 2, "tokens": 642, "usd": 0.0246, "share": 1.0}
    common |= {"usd_per_run": 0.0123, "tokens_per_run": 321.0}
    assert row == {"agent": "spender", **common}
    assert total == {"total": True, **common, "completed_runs": 2}
    names = {by: [row[by] for row in spender("cost", "--by", by, "--json").rows[:-1]] for by in ("run", "type")}
    assert names == {"run": ["tea-0", "tea-1"], "type": ["word.said"]}
    lines = [line.split() for line in spender("cost").out.splitlines()]
    assert lines[0][-3:] == ["2", "completed", "runs"]
    assert lines[1:] == [
        ["AGENT", "RUNS", "ANSWERS", "TOKENS", "USD", "SHARE", "PER", "RUN"],
        ["spender", "2", "2", "642", "0.0246", "100", "%", "0.0123"],
        ["total", "2", "2", "642", "0.0246", "100", "%", "0.0123"],
    ]
    (day, _) = spender("cost", "--by", "day", "--json").rows
    assert len(day["day"]) == len("2026-12-01")


def test_where_nothing_was_spent_it_says_how_to_report(desk: Cli) -> None:
    done = desk("cost")
    assert done.code == 0
    assert "Nothing was spent since" in done.out
    assert "ctx.spend(usd=…, tokens=…)" in done.err


def test_what_is_wrong_is_said(desk: Cli) -> None:
    done = desk("cost", "--by", "model")
    assert (done.code, done.out) == (2, "")
    assert "--by: costs are not summed by this; expected agent, run, type, day, got model" in done.err
    assert desk("cost", "--since", "soon").code == 2
