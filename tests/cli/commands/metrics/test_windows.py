"""`mesh windows`: the numbers of a mesh that runs, in text and as JSON."""

import signal

import pytest

from tests.cli.conftest import Cli, Terminal


def test_numbers_of_the_mesh_and_its_agents(desk: Cli) -> None:
    desk("publish", "hello", '{"name":"window-1"}', "--wait")
    desk("publish", "break.me", '{"why":"windows"}', "--wait")
    done = desk("windows")
    assert done.code == 0
    assert " requested · overhead " in done.out
    heads, *rows = done.out.partition("\n\n")[2].splitlines()
    assert heads.split()[:3] == ["AGENT", "ANSWERS", "ERRORS"]
    assert {row.split()[0] for row in rows} >= {"greeter", "keeper", "breaker"}
    assert "dead  " in done.out


def test_json_has_a_line_for_each_window_and_scope(desk: Cli) -> None:
    desk("publish", "hello", '{"name":"window-2"}', "--wait")
    rows = desk("windows", "--json", "--size", "10s").rows
    assert {row["scope"] for row in rows} >= {"mesh", "agent:greeter", "type:hello"}
    assert {row["length_ms"] for row in rows} == {10_000}
    (listed,) = {row["scope"] for row in desk("windows", "greeter", "--json").rows}
    assert listed == "agent:greeter"
    inbox = desk("topics", "read", "inbox", "--agent", "greeter", "--json").rows
    counted = sum(row["counts"]["answers"] for row in rows if row["scope"] == "agent:greeter")
    assert counted == len([row for row in inbox if row["meshkind"] in ("succeeded", "failed")])


def test_an_agent_window_by_window(desk: Cli) -> None:
    desk("publish", "hello", '{"name":"window-3"}', "--wait")
    done = desk("windows", "greeter", "--size", "10s")
    assert done.out.startswith("10 s FROM ")
    assert len(done.out.splitlines()) >= 2


@pytest.mark.parametrize(
    ("arguments", "code", "error"),
    [
        (["nobody"], 3, "no agent is called 'nobody'"),
        (["--size", "5s"], 2, "--size: windows do not have this length; expected 10s, 1m, 1h, got 5s"),
        (["--since", "soon"], 2, "--since: this is not a time"),
    ],
)
def test_what_is_wrong_is_said(desk: Cli, arguments: list[str], code: int, error: str) -> None:
    done = desk("windows", *arguments)
    assert (done.code, done.out) == (code, "")
    assert error in done.err


def test_without_a_mesh_and_without_records(project: Cli) -> None:
    assert "no mesh here yet" in project("windows").err
    with project.up():
        assert "Nothing happened since" in project("windows", "--since", "1s").err
        assert "Nothing happened in this time." in project("windows", "greeter").err


def test_it_follows_until_ctrl_c(desk: Cli) -> None:
    with Terminal(desk, "windows", "--follow", columns=80) as terminal:
        terminal.until("a line for each 10 s; Ctrl-C ends")
        terminal.process.send_signal(signal.SIGINT)
        assert terminal.end().code == 130
