"""`mesh run cancel`, `pause`, `resume`; and what `run show` tells of a run that stands still."""

import pytest

from tests.cli.conftest import Cli, plain, until


def napping(cli: Cli, id: str, *, wait: bool = True) -> str:
    """The id of a run whose agent sleeps."""
    run = str(cli("publish", "nap.taken", '{"seconds": 50}', "--id", id, "--json").rows[0]["run"])
    if wait:
        until((cli.folder / f"napping-{run}").exists)
    return run


def state_of(cli: Cli, run: str) -> str:
    return str(cli("run", "show", run, "--json").rows[0]["state"])


def test_a_named_run_is_cancelled_at_once(desk: Cli) -> None:
    run = napping(desk, "c-1")
    done = desk("run", "cancel", "c-1", "--why", "sent twice")
    assert (done.code, plain(done.out)) == (0, "○ cancelled  run RUN\n")
    assert state_of(desk, run) == "cancelled"
    assert ": sent twice" in desk("run", "show", run).out


def test_what_has_ended_cannot_be_cancelled_paused_or_resumed(desk: Cli) -> None:
    run = desk("publish", "word.said", '{"word": "a"}', "--wait", "--json").rows[0]["run"]
    for word in ("cancel", "pause", "resume"):
        done = desk("run", word, run, "--json")
        assert done.code == 5
        assert '"code":"already_terminal"' in done.err
        assert f"it had ended completed: there is nothing to {word}" in done.err


def test_a_paused_run_says_since_when_by_whom_and_why_until_it_is_resumed(desk: Cli) -> None:
    run = napping(desk, "p-1")
    done = desk("run", "pause", run, "--why", "the bed is broken")
    assert (done.code, plain(done.out)) == (0, "‖ paused  run RUN\n")
    assert plain(done.err) == "undo it: mesh run resume RUN\n"
    shown = plain(desk("run", "show", run).err)
    assert shown.startswith("stands still: paused TIME: ")
    assert ": the bed is broken  mesh run resume RUN" in shown
    again = desk("run", "resume", run, "--json").rows[0]
    assert (again["wish"], again["heard"], again["ending"], again["undo"][:15]) == (
        "resumed",
        True,
        None,
        "mesh run pause ",
    )
    assert "stands still" not in desk("run", "show", run).err
    assert desk("run", "cancel", run).code == 0


def test_a_run_that_is_paused_already_or_not_paused_is_refused_and_headlines_report_which(desk: Cli) -> None:
    run = napping(desk, "p-2")
    done = desk("run", "resume", run, "--json")
    assert (done.code, done.out) == (5, "")
    assert '"code":"not_paused"' in done.err
    assert "it is not paused: there is nothing to resume" in done.err
    assert desk("run", "show", run).out.splitlines()[0].endswith("  open")
    assert desk("run", "pause", run, "--why", "the bed is broken").code == 0
    head = desk("run", "show", run).out.splitlines()[0]
    assert head.startswith("‖ p-2")
    assert "  paused" in head
    assert desk("run", "show", run, "--json").rows[0]["paused"] is True
    done = desk("run", "pause", run)
    assert done.code == 5
    assert "it is paused already, " in done.err
    assert ": the bed is broken. `mesh run resume " in done.err
    assert '"code":"already_paused"' in desk("run", "pause", run, "--json").err
    assert "noted" not in desk("run", "show", run).out
    assert desk("run", "resume", run).code == 0
    assert desk("run", "show", run, "--json").rows[0]["paused"] is False
    assert desk("run", "cancel", run).code == 0


def test_several_runs_are_cancelled_only_with_yes(project: Cli) -> None:
    with project.up():
        runs = {napping(project, f"s-{n}", wait=False) for n in range(3)}
        dry = project("run", "cancel", "--type", "nap.taken")
        assert dry.code == 0
        assert len(dry.out.splitlines()) == 4
        assert dry.err == "3 open runs would be cancelled; nothing was changed. --yes does it\n"
        assert {row["run"] for row in project("run", "cancel", "--all", "--json").rows} == runs
        assert project("run", "cancel", "--type", "hello", "--yes").err == "No such runs are open.\n"
        assert {state_of(project, run) for run in runs} == {"open"}
        done = project("run", "cancel", "--all", "--yes")
        assert (done.code, done.out) == (0, "○ cancelled  3 runs\n")
        assert {state_of(project, run) for run in runs} == {"cancelled"}


def test_only_paused_runs_are_resumed_and_lists_show_which_those_are(project: Cli) -> None:
    with project.up():
        first, second = (napping(project, f"p-{n}", wait=False) for n in range(2))
        assert project("run", "resume", "--all").err == "No such runs are paused.\n"
        project("run", "pause", first)
        assert {row["run"]: row["paused"] for row in project("run", "list", "--json").rows} == {
            first: True,
            second: False,
        }
        assert "‖ paused" in project("run", "list").out
        dry = project("run", "resume", "--all")
        assert dry.err == "1 paused run would be resumed; nothing was changed. --yes does it\n"
        assert [row["run"] for row in project("run", "pause", "--all", "--json").rows] == [second]
        assert project("run", "resume", "--all", "--yes").out == "▸ resumed  1 run\n"
        assert not any(row["paused"] for row in project("run", "list", "--json").rows)
        project("run", "cancel", "--all", "--yes")


def test_an_unread_run_command_is_kept_and_reported_as_unread(project: Cli) -> None:
    run = napping(project, "early", wait=False)
    done = project("run", "cancel", run)
    assert (done.code, plain(done.out)) == (0, "○ to be cancelled  run RUN\n")
    assert "no orchestrator has read it yet: is `mesh up` running?" in done.err
    with project.up():
        until(lambda: state_of(project, run) == "cancelled")


@pytest.mark.parametrize("arguments", [(), ("x", "--all"), ("--all", "--type", "hello")])
def test_one_run_or_several_but_not_both(desk: Cli, arguments: tuple[str, ...]) -> None:
    done = desk("run", "cancel", *arguments)
    assert done.code == 2
    assert "expected ID, --type TYPE, or --all" in done.err


def test_a_run_whose_agent_is_stopped_names_the_operator(project: Cli) -> None:
    run = napping(project, "still", wait=False)
    project("stop", "agent", "napper", "--why", "wake up")
    with project.up("orchestrator"):
        until(lambda: bool(project("run", "show", run, "--json").rows[0]["tasks"]))
        assert project("run", "show", run, "--json").rows[0]["stops"][0]["switch"] == "agent:napper"
        told = project("run", "show", run).err
    assert "stands still: agent napper stopped" in told
    assert ": wake up  mesh resume agent napper" in told
