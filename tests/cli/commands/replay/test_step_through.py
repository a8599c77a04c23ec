"""`mesh replay RUN --step` at a real terminal, and in a pipe."""

import re

import pytest

from tests.cli.conftest import Cli, Terminal

RIGHT, LEFT = "\x1b[C", "\x1b[D"


def test_keys_lead_forward_and_back_and_q_leaves_the_terminal_as_it_was(lived: Cli) -> None:
    with Terminal(lived, "replay", "ada", "--step", columns=80) as terminal:
        shown = terminal.until("step 1 of 3")
        assert "greeter is on hello; hop 1 of 6" in shown
        for key in ("next", "back", "refusal", "agent", "break", "step", "quit"):
            assert f" {key}" in terminal.until(f" {key}")
        for key, step in ((RIGHT, 2), ("G", 3), (LEFT, 2), ("g", 1)):
            terminal.text = ""
            terminal.press(key)
            terminal.until(f"step {step} of 3")
        terminal.text = ""
        terminal.press("q")
        done = terminal.end()
    assert done.code == 0
    assert "\x1b[?1049l" in done.out
    assert "\x1b[?25h" in done.out


def test_a_break_is_where_it_begins(lived: Cli) -> None:
    with Terminal(lived, "replay", "ada", "--break", 'agent == "keeper"') as terminal:
        assert "break 1 of 1" in terminal.until("break 1 of 1")
        assert "step 3 of 3" in terminal.text
        terminal.press("q")
        assert terminal.end().code == 0


def test_ctrl_c_ends_it_and_gives_the_terminal_back(lived: Cli) -> None:
    with Terminal(lived, "replay", "ada", "--step") as terminal:
        terminal.until("step 1 of 3")
        terminal.press("\x03")
        done = terminal.end()
    assert done.code == 130
    assert "\x1b[?1049l" in done.out


def test_in_a_pipe_all_steps_are_printed_and_breaks_are_marked(lived: Cli) -> None:
    whole = lived("replay", "ada").out
    assert lived("replay", "ada", "--step").out == whole
    marked = lived("replay", "ada", "--break", 'agent == "keeper"')
    assert (marked.code, marked.out.count("● break")) == (0, 1)
    assert marked.out.replace("● break", "") == whole
    rows = lived("replay", "ada", "--break", 'hello.name == "ada"', "--json").rows[1:]
    assert [row["break"] for row in rows] == [True, False, False]


def test_a_wrong_condition_is_an_error_with_its_column(lived: Cli) -> None:
    done = lived("replay", "ada", "--break", "agent = 3")
    assert done.code == 2
    assert "--break, column 7" in done.err
    assert "two modes" in lived("replay", "ada", "--step", "--check").err


def test_a_recording_of_one_run_is_walked_through_and_one_of_several_asks_for_a_name(lived: Cli) -> None:
    (lived.folder / "one.jsonl").write_text(lived("run", "export", "ada").out)
    (lived.folder / "all.jsonl").write_text(lived("run", "export", "--where", 'type == "hello"').out)
    assert lived("replay", "one.jsonl", "--step").out == lived("replay", "ada").out
    assert "1 same, 0 new, 0 gone, 1 refused" not in lived("replay", "one.jsonl", "--limit", "depth_max=6").out
    done = lived("replay", "all.jsonl", "--step")
    assert (done.code, done.out) == (2, "")
    assert "the recording holds 2 runs" in done.err
    assert lived("replay", "ada", "--step", "--log", "recording:all.jsonl").out == lived("replay", "ada").out


def test_a_condition_that_fits_no_step_is_reported(lived: Cli) -> None:
    done = lived("replay", "ada", "--break", 'agent == "nobody"')
    assert (done.code, done.err) == (0, "no step fits --break\n")
    assert lived("replay", "ada", "--break", 'agent == "keeper"').err == ""


@pytest.mark.parametrize("lines", [1, 2, 3, 5, 9])
def test_a_terminal_of_a_few_lines_shows_the_step_and_where_it_is(lived: Cli, lines: int) -> None:
    with Terminal(lived, "replay", "ada", "--step", columns=80, env={"LINES": str(lines)}) as terminal:
        first = terminal.until("requested")
        if lines > 1:
            terminal.until("1 of 3 · → next")
        terminal.text = ""
        terminal.press(RIGHT)
        second = terminal.until("succeeded")
        if lines > 1:
            second = terminal.until("2 of 3")
        for shown in (first, second):
            assert shown.count("\r\n") < lines  # no line is pushed off the screen
        terminal.press("q")
        done = terminal.end()
    assert done.code == 0
    assert re.search(r"greeter", done.out) or lines < 3
