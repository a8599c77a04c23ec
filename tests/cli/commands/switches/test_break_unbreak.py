"""`mesh break` and `mesh unbreak`: faults on purpose, where topics.yaml allows them, and how they are seen."""

import signal
import sqlite3
from contextlib import closing

import pytest

from mesh.app.wiring import load_topology
from tests.cli.conftest import ROOT, Cli, until


@pytest.fixture
def brittle(project: Cli) -> Cli:
    """A project whose topics.yaml allows faults."""
    file = project.folder / "topics.yaml"
    text = file.read_text().replace("  name: desk\n", "  name: desk\n  chaos: true\n")
    file.write_text(
        text.replace("on: word.said, emits: word.heard, timeout: 5s", "on: word.said, emits: word.heard, timeout: 1s")
    )
    return project


def test_nothing_may_be_broken_unless_topics_yaml_says_so(project: Cli) -> None:
    project("topics", "create")
    for arguments in (("echo", "--error", "no"), ("log", "--hang"), ("board", "--slow", "1s")):
        done = project("break", *arguments)
        assert done.code == 5
        assert "mesh: {chaos: true}" in done.err
    assert project("unbreak").err == "Nothing is broken on purpose.\n"


def test_an_agent_fails_in_the_way_it_was_broken_until_it_is_fixed(brittle: Cli) -> None:
    with brittle.up():
        done = brittle("break", "echo", "--error", "no such table: prices")
        assert done.code == 0
        assert done.out == "✗ broken  agent echo raises 'no such table: prices'  for 1 m\n"
        assert "mesh unbreak echo" in done.err
        run = brittle("publish", "word.said", '{"word": "hm"}', "--json").rows[0]["run"]
        until(lambda: "no such table" in brittle("run", "show", run).out)
        shown = brittle("run", "show", run)
        if "open" in shown.out.splitlines()[0]:
            assert "broken on purpose: agent echo raises" in shown.err
        assert brittle("unbreak").out == "▸ fixed  agent echo\n"
        assert brittle("unbreak", "echo").err == "echo is not broken on purpose.\n"
        assert brittle("publish", "word.said", '{"word": "good"}', "--wait").code == 0


def test_a_run_that_meets_a_fault_says_so_while_it_is_open(brittle: Cli) -> None:
    with brittle.up():
        assert brittle("break", "napper", "--hang").code == 0
        run = brittle("publish", "nap.taken", '{"seconds": 0}', "--json").rows[0]["run"]
        until(lambda: "broken on purpose: agent napper hangs, for " in brittle("run", "show", run).err)
        (row,) = brittle("run", "show", run, "--json").rows
        assert row["broken"][0]["broken"] == "napper"
        assert row["broken"][0]["how"] == "hang"
        brittle("run", "cancel", run)
        assert "broken" not in brittle("run", "show", run, "--json").rows[0]


def test_a_crash_kills_the_process_of_the_worker(brittle: Cli) -> None:
    brittle("topics", "create")
    assert brittle("break", "echo", "--crash", "--for", "30s").code == 0
    with brittle.background("up", "orchestrator"), brittle.background("up", "worker") as worker:
        brittle("publish", "word.said", '{"word": "boom"}')
        assert worker.end().code == 137


def test_the_log_takes_no_writes_while_it_is_broken(brittle: Cli) -> None:
    brittle("topics", "create")
    with brittle.background("break", "log", "--hang", "--for", "30s") as breaking:
        breaking.out_until("✗ broken  the log hangs")
        until(lambda: _locked(brittle))
        done = brittle("publish", "word.said", '{"word": "hm"}', env={"MESH_APPEND_TIMEOUT_MS": "300"})
        assert done.code == 4
        breaking.signal(signal.SIGINT)
        assert breaking.end().code == 130
    assert brittle("unbreak").err == "Nothing is broken on purpose.\n"
    assert brittle("publish", "word.said", '{"word": "hm"}').code == 0


def test_a_slow_board_is_fixed_by_itself(brittle: Cli) -> None:
    brittle("topics", "create")
    done = brittle("break", "board", "--slow", "50ms", "--for", "300ms")
    assert done.code == 0
    assert done.out.endswith("▸ fixed  the board\n")
    assert brittle("board", "put", "k", "1").code == 0


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("echo",), "exactly one fault must be chosen"),
        (("echo", "--crash", "--hang"), "exactly one fault must be chosen"),
        (("log", "--error", "x"), "expected --slow or --hang"),
        (("board", "--crash"), "expected --slow or --hang"),
        (("echo", "--error", ""), "invalid message"),
        (("echo", "--slow", "0s"), "invalid delay"),
        (("echo", "--crash", "--for", "2h"), "at most 1h"),
        (("ecko", "--crash"), "Did you mean 'echo'?"),
    ],
)
def test_what_makes_no_fault_is_refused(brittle: Cli, arguments: tuple[str, ...], told: str) -> None:
    brittle("topics", "create")
    done = brittle("break", *arguments)
    assert done.code in (2, 3)
    assert told in done.err


def test_a_worker_that_returns_after_an_outage_of_the_log_has_not_died(brittle: Cli) -> None:
    short = {"MESH_APPEND_TIMEOUT_MS": "500", "MESH_SESSION_TIMEOUT_MS": "1000"}
    with brittle.up(env=short) as running:
        brittle("publish", "word.said", '{"word": "before"}', "--wait")
        with brittle.background("break", "log", "--hang", "--for", "30s") as breaking:
            running.err_until("tried again in")
            breaking.signal(signal.SIGINT)
        assert brittle("publish", "word.said", '{"word": "after"}', "--wait").code == 0
        running.signal(signal.SIGINT)
        assert "a worker died" not in running.end().err


@pytest.mark.parametrize("name", ["log", "board"])
def test_what_is_not_embedded_is_not_broken_from_here(brittle: Cli, name: str) -> None:
    elsewhere = {"log": "kafka://127.0.0.1:1", "board": "redis://127.0.0.1:1"}[name]
    done = brittle("break", name, "--hang", f"--{name}", elsewhere)
    assert done.code == 5
    assert f"only an embedded {name} can be broken from here" in done.err


def _locked(cli: Cli) -> bool:
    with closing(sqlite3.connect(cli.folder / ".mesh/mesh.db", isolation_level=None, timeout=0)) as probe:
        try:
            probe.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            return True
        probe.execute("ROLLBACK")
        return False


def test_the_environment_may_allow_faults_without_a_change_of_topics_yaml(project: Cli) -> None:
    allowed = {"MESH_CHAOS": "true"}
    with project.up(env=allowed):
        assert project("break", "echo", "--error", "no such table", env=allowed).code == 0
        done = project("publish", "word.said", '{"word": "hm"}', "--wait", env=allowed)
        assert "no such table (broken on purpose)" in done.out


def test_a_fault_that_the_running_mesh_ignores_is_refused(project: Cli) -> None:
    allowed = {"MESH_CHAOS": "true"}
    with project.up():
        done = project("break", "echo", "--error", "no such table", env=allowed)
        assert done.code == 5
        assert "the mesh was started without chaos, so a fault would have no effect" in done.err
        assert "MESH_CHAOS=true" in done.err
        assert "broken" not in done.out
        assert project("unbreak", "echo", env=allowed).err == "echo is not broken on purpose.\n"
    with project.up(env=allowed):
        assert project("break", "echo", "--error", "no such table", env=allowed).code == 0


def test_the_example_mesh_allows_no_faults_outside_of_the_demo() -> None:
    assert not load_topology(str(ROOT / "topics.yaml")).chaos
