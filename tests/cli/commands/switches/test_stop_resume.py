"""`mesh stop` and `mesh resume`: the kill switch."""

import pytest

from tests.cli.conftest import Cli, plain


def test_a_stop_acts_at_once_and_says_how_to_undo_it(project: Cli) -> None:
    project("topics", "create")
    done = project("stop", "agent", "greeter", "--why", "it greets the wrong people")
    assert done.code == 0
    assert done.out == "■ stopped  agent greeter\n"
    assert done.err == "undo it: mesh resume agent greeter\n"
    shown = project("resume").out
    assert plain(shown).splitlines()[0].split() == ["STOPPED", "SINCE", "BY", "WHY", "UNDO"]
    assert "agent greeter" in shown
    assert "it greets the wrong people" in shown
    again = project("stop", "agent", "greeter", "--json").rows[0]
    assert (again["switch"], again["changed"], again["why"]) == ("agent:greeter", False, "it greets the wrong people")
    assert again["undo"] == "mesh resume agent greeter"
    assert "@" in again["by"]


def test_a_second_stop_names_the_operator_of_the_first(project: Cli) -> None:
    project("topics", "create")
    project("stop", "all")
    done = project("stop", "all")
    assert done.code == 0
    assert plain(done.out).startswith("■ all agents stopped")
    assert "@" in done.out


def test_a_resume_of_all_leaves_what_was_stopped_by_name(project: Cli) -> None:
    project("topics", "create")
    project("stop", "agent", "greeter", "--why", "rude")
    project("stop", "all")
    done = project("resume", "all")
    assert done.code == 0
    assert done.out == "▸ resumed  all agents\n"
    assert "undo it: mesh stop all\n" in done.err
    assert "still: agent greeter stopped" in done.err
    assert "mesh resume agent greeter" in done.err
    last = project("resume", "agent", "greeter", "--json")
    assert [(row["switch"], row["state"], row["changed"]) for row in last.rows] == [("agent:greeter", "running", True)]
    assert project("resume").err == "Nothing is stopped.\n"


def test_a_resume_of_what_is_not_stopped_changes_nothing_and_says_what_does_stand_still(project: Cli) -> None:
    project("topics", "create")
    project("stop", "all", "--why", "fire drill")
    done = project("resume", "agent", "greeter")
    assert done.code == 0
    assert done.out == "agent greeter: not stopped by name\n"
    assert "still: all agents stopped" in done.err
    assert ": fire drill  mesh resume all" in done.err


def test_every_stop_is_lifted_only_with_yes(project: Cli) -> None:
    project("topics", "create")
    project("stop", "agent", "greeter")
    project("stop", "agent", "keeper")
    dry = project("resume", "--json")
    assert [(row["switch"], row["changed"]) for row in dry.rows] == [("agent:greeter", False), ("agent:keeper", False)]
    assert "2 stops; nothing was changed. --yes lifts every one" in project("resume").err
    done = project("resume", "--yes")
    assert done.out == "▸ resumed  agent greeter\n▸ resumed  agent keeper\n"
    assert project("resume").err == "Nothing is stopped.\n"


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (("stop",), 2, "Missing argument"),
        (("stop", "everything"), 2, "expected agent NAME, or all, got everything"),
        (("stop", "all", "greeter"), 2, "got all greeter"),
        (("stop", "agent"), 2, "expected agent NAME, or all"),
        (("stop", "agent", "greter"), 3, "Did you mean 'greeter'?"),
        (("resume", "agent", "unknown"), 3, "no agent is called 'unknown'"),
    ],
)
def test_an_invalid_switch_is_reported(project: Cli, arguments: tuple[str, ...], code: int, told: str) -> None:
    project("topics", "create")
    done = project(*arguments)
    assert (done.code, done.out) == (code, "")
    assert told in done.err


def test_without_a_mesh_there_is_nothing_to_stop(project: Cli) -> None:
    assert project("stop", "all").code == 3
    assert project("resume").code == 3
