"""`mesh top`: one table into a pipe, and the live screen at a terminal of its own."""

import re

from tests.cli.conftest import Cli, Terminal, until

NAP = ("publish", "nap.taken", "{}")


def frame(terminal: Terminal) -> list[str]:
    """The lines of the last screen that is whole."""
    whole = terminal.text.split("\x1b[H")
    text = next((part for part in reversed(whole) if "q quit" in re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", part)), "")
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text).replace("\r", "").splitlines()


def small(cli: Cli, columns: int, *arguments: str) -> Terminal:
    return Terminal(cli, "top", *arguments, columns=columns, env={"LINES": "24"})


def test_one_table_into_a_pipe(project: Cli) -> None:
    with project.up():
        assert project("publish", "hello", '{"name":"top"}', "--wait").code == 0
        assert project("publish", "break.me", "{}", "--wait").code == 1
        assert project(*NAP).code == 0
        until(lambda: "1 in flight" in project("top").out)
        done = project("top")
        assert (done.code, done.err) == (0, "")
        lines = done.out.splitlines()
        assert re.fullmatch(r"desk  \d\d:\d\d:\d\d  last \d+ s: from the log, no monitor runs", lines[0])
        assert lines[1].startswith("1 in flight · 3 requested · 2 ended · 50 % completed · 1 dead letter")
        heads = lines[3].split()
        assert heads[:2] == ["AGENT", "LAG"]
        rows = {line.split()[0]: line.split() for line in lines[4:] if line}
        assert list(rows)[:6] == ["greeter", "keeper", "breaker", "runner", "napper", "echo"]
        assert rows["napper"][1] == "1"
        assert rows["breaker"][-2:] == ["100", "%"]
        assert "IN FLIGHT, OLDEST FIRST" in done.out


def test_json_has_everything(project: Cli) -> None:
    with project.up():
        assert project("publish", "hello", '{"name":"top"}', "--wait").code == 0
        assert project("stop", "agent", "keeper", "--why", "tea").code == 0
        (row,) = project("top", "--json").rows
    agents = {one["agent"]: one for one in row["agents"]}
    assert (row["mesh"], row["source"], row["runs_in_flight"], row["alerts"]) == ("desk", "log", 0, [])
    assert agents["greeter"]["numbers"]["error_rate"] == 0
    assert agents["keeper"]["stopped"]["why"] == "tea"
    assert [stop["agent"] for stop in row["stops"]] == ["keeper"]
    assert {one["consumer"] for one in row["services"]} == {"intake", "orchestrator"}


def test_keys_choose_sort_stop_and_resume(project: Cli) -> None:
    with project.up(), small(project, 80) as terminal:
        terminal.until("greeter")
        terminal.press("\x1b[B", "x")
        terminal.until("stop agent keeper everywhere?")
        terminal.press("n")
        terminal.until("not stopped")
        assert project("resume").out == ""
        terminal.press("x")
        terminal.press("y")
        terminal.until("mesh stop agent keeper")
        terminal.until(" s ago by ")
        assert project("agents", "--json").rows[1]["stopped"]["why"] == "mesh top"
        terminal.press("r")
        terminal.until("mesh resume agent keeper\x1b")
        until(lambda: project("resume").out == "")
        terminal.press("s")
        terminal.until("sorted by name")
        lines = frame(terminal)
        assert max(map(len, lines)) <= 80
        assert len(lines) <= 24
        terminal.press("q")
        assert terminal.end().code == 0


def test_a_narrow_screen_keeps_what_matters_in_its_columns(project: Cli) -> None:
    with project.up():
        assert project("stop", "agent", "greeter").code == 0
        for _ in range(30):
            assert project(*NAP).code == 0
        with small(project, 40) as terminal:
            terminal.until("napper")
            terminal.press("\x1b[B")
            terminal.until("▸ \x1b[0m\x1b[1mkeeper")
            lines = frame(terminal)
            assert max(map(len, lines)) <= 40
            assert len(lines) <= 24
            (heads,) = [line for line in lines if "AGENT" in line]
            assert {"AGENT", "LAG", "STATE"} <= set(heads.split())
            terminal.press("q")
            assert terminal.end().code == 0


def test_ctrl_c_ends_it_and_gives_the_terminal_back(desk: Cli) -> None:
    with small(desk, 80) as terminal:
        terminal.until("greeter")
        terminal.press("\x03")
        done = terminal.end()
    assert done.code == 130
    assert "\x1b[?1049l" in done.out


def test_what_is_wrong_is_said(desk: Cli, project: Cli) -> None:
    done = desk("top", "--since", "1s")
    assert (done.code, done.out) == (2, "")
    assert "--since: this time is too short; expected 10s or more" in done.err
    assert "no mesh here yet" in project("top").err
