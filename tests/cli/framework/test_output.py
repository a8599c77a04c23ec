"""Output of a terminal: colour only if it is wanted, and texts of events are escaped."""

import json
import re

import pytest

from mesh.cli.framework.output import Output
from tests.cli.conftest import Cli, Terminal

ESC = "\x1b"
EVIL = "\x1b]0;owned\x07\x1b[31mred\x1b[0m\u202egnp.exe\u009b31m [bold]not bold[/bold]"
ESCAPED = r"\x1b]0;owned\x07\x1b[31mred\x1b[0m\u202egnp.exe\x9b31m [bold]not bold[/bold]"


@pytest.fixture(scope="module")
def evil(desk: Cli) -> str:
    """The run of an agent that failed with words that would command a terminal."""
    return str(desk("publish", "break.me", json.dumps({"why": EVIL}), "--wait", "--json").rows[0]["run"])


@pytest.mark.parametrize("command", [("run", "show"), ("dead", "list", "--run")])
def test_text_from_events_is_shown_escaped(desk: Cli, evil: str, command: tuple[str, ...]) -> None:
    done = desk(*command, evil)
    assert ESCAPED in done.out
    assert ESC not in done.out
    assert "\u202e" not in done.out


def test_text_from_events_is_escaped_at_a_terminal_too(desk: Cli, evil: str) -> None:
    with Terminal(desk, "run", "show", evil, columns=300) as terminal:
        done = terminal.end()
    assert ESCAPED in done.out
    assert f"{ESC}]0" not in done.out
    assert f"{ESC}[31mred" not in done.out
    assert "\u009b" not in done.out


def test_json_means_the_same_and_commands_no_terminal(desk: Cli, evil: str) -> None:
    done = desk("dead", "list", "--run", evil, "--json")
    assert not any(character in done.out for character in (ESC, "\u009b", "\u202e", "\x07"))
    assert done.rows[0]["message"] == EVIL


def test_a_very_long_line_is_cut(desk: Cli) -> None:
    word = "x" * 200_000
    run = desk("publish", "break.me", "@-", "--json", input=json.dumps({"why": word})).rows[0]["run"]
    desk("publish", "word.said", "@-", "--run-id", "long-word", "--wait", input=json.dumps({"word": word}))
    for command in (("run", "show", "long-word"), ("run", "show", run), ("dead", "list", "--limit", "1")):
        assert max(map(len, desk(*command).out.splitlines())) < 1_500


@pytest.mark.parametrize(
    ("env", "options", "coloured"),
    [
        ({}, (), True),
        ({"NO_COLOR": "1"}, (), False),
        ({"NO_COLOR": ""}, (), True),
        ({"TERM": "dumb"}, (), False),
        ({}, ("--no-color",), False),
        ({"NO_COLOR": "1", "FORCE_COLOR": "1"}, (), False),
    ],
)
def test_colour_at_a_terminal(cli: Cli, env: dict[str, str], options: tuple[str, ...], coloured: bool) -> None:
    with Terminal(cli, "config", "show", *options, env=env) as terminal:
        done = terminal.end()
    assert (ESC in done.out) is coloured
    assert done.code == 0


def test_colour_in_a_pipe_only_when_forced(cli: Cli) -> None:
    assert ESC not in cli("config", "show").out
    assert ESC in cli("config", "show", env={"FORCE_COLOR": "1"}).out


def test_lines_are_not_folded_in_a_pipe(desk: Cli) -> None:
    lines = desk("agents", env={"COLUMNS": "40"}).out.splitlines()
    assert any(line.startswith("runner ") and line.endswith(" desk:go_round") for line in lines)


def test_a_stream_that_is_not_utf_8_gets_plain_marks(desk: Cli) -> None:
    desk("publish", "hello", '{"name": "ascii"}', "--wait")
    done = desk.fresh("run", "show", "ascii", env={"PYTHONIOENCODING": "ascii"})
    assert done.code == 0
    assert "`- greeter" in done.out


def test_a_line_in_a_pipe_is_that_of_a_terminal_without_its_colours(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pieces = ("  a\tb ", ("\x1b[31mred", "bold"), " 注文 \u202e", ("wide " * 60, "dim"), "   ")
    Output().print(*pieces)
    piped = capsys.readouterr().out
    monkeypatch.setenv("FORCE_COLOR", "1")
    Output().print(*pieces)
    coloured = capsys.readouterr().out
    assert "\x1b[" in coloured
    assert re.sub("\x1b\\[[0-9;]*m", "", coloured) == piped
    assert piped.count("\n") == 1
