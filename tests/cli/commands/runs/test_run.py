"""`mesh run`: list, show, watch."""

import json
import re
from pathlib import Path

import pytest

from tests.cli.conftest import Cli, Terminal, plain, until


def published(cli: Cli, type: str, payload: str, *options: str) -> str:
    """The id of a run that has ended."""
    return str(cli("publish", type, payload, "--wait", "--json", *options).rows[0]["run"])


def test_a_refused_run_is_shown_with_its_tree_and_why(desk: Cli) -> None:
    run = published(desk, "round.go", "{}", "--id", "lap-1")
    done = desk("run", "show", run)
    assert done.code == 0
    assert (
        re.sub(r"trace [0-9a-f]{32}", "trace TRACE", plain(done.out)).split("\ntimeline\n")[0]
        == """\
■ lap-1  round.go  stopped TIME
  run RUN · requested DATE · 3 tasks
  trace TRACE

  └─ runner        round.go TIME
     └─ runner     round.go TIME
        └─ runner  round.go TIME

  refused visits: runner > runner > runner > runner reaches 'runner' 4 times in this run, at most 3

drafts  results of loops that a limit ended
  round.go  by runner
    {"lap":3}
"""
    )
    assert plain(done.err) == "its dead letters: mesh dead list --run RUN\n"


def test_a_failed_run_is_shown_with_its_attempts(desk: Cli) -> None:
    run = published(desk, "break.me", '{"why": "it fell"}')
    done = desk("run", "show", run)
    assert "└─ breaker" in done.out
    assert "2 attempts  dead  exception" in done.out
    assert "failed breaker after 2 attempts: exception: it fell" in done.out
    kinds = [line.split()[4] for line in plain(done.out).split("timeline\n")[1].replace("TIME", "TIME x").splitlines()]
    assert kinds == ["requested", "dispatched", "failed", "retry", "dispatched", "failed", "dead", "ended"]


def test_a_run_is_shown_whole_as_json(desk: Cli) -> None:
    run = published(desk, "hello", '{"name": "ann"}')
    (shown,) = desk("run", "show", run, "--json").rows
    assert shown["state"] == "completed"
    assert [(task["agent"], task["state"], task["depth"]) for task in shown["tasks"]] == [
        ("greeter", "done", 1),
        ("keeper", "done", 2),
    ]
    assert shown["tasks"][1]["parent"] == shown["tasks"][0]["task"]
    assert shown["results"][0]["data"] == {"text": "good day, ann"}
    assert shown["timeline"][0]["kind"] == "requested"
    assert shown["timeline"][-1] == {**shown["timeline"][-1], "kind": "ended", "text": "completed"}
    assert shown["topology_differs"] is False


def test_a_run_goes_by_its_beginning_its_requests_id_and_its_subject(desk: Cli) -> None:
    run = published(desk, "hello", '{"name": "bea"}')
    for name in (run[:10], "bea"):
        (shown,) = desk("run", "show", name, "--json").rows
        assert shown["run"] == run


def test_a_name_of_several_runs_is_refused_with_the_candidates(desk: Cli) -> None:
    runs = [published(desk, "word.said", '{"word": "x"}', "--run-id", f"twin-{n}") for n in (1, 2)]
    done = desk("run", "show", "twin-")
    assert done.code == 2
    assert all(run in done.err for run in runs)


def test_an_unknown_run_is_exit_code_3_with_the_next_command(desk: Cli) -> None:
    done = desk("run", "show", "unknown")
    assert done.code == 3
    assert "no run goes by 'unknown'" in done.err
    assert "`mesh run list`" in done.err


def test_an_open_run_is_listed_and_shown_as_open(desk: Cli) -> None:
    run = desk("publish", "nap.taken", '{"seconds": 55}', "--json").rows[0]["run"]
    (row,) = [row for row in desk("run", "list", "--state", "open", "--json").rows if row["run"] == run]
    assert row["ended"] is None
    shown = desk("run", "show", run)
    assert "… " in shown.out
    assert "dispatched, no result yet" in shown.out


def test_the_list_is_newest_first_and_can_be_filtered(desk: Cli) -> None:
    runs = [published(desk, "hello", f'{{"name": "list-{n}"}}') for n in range(3)]
    rows = desk("run", "list", "--type", "hello", "--limit", "3", "--json").rows
    assert [row["run"] for row in rows] == runs[::-1]
    assert all(row["type"] == "hello" and row["state"] == "completed" and row["tasks"] == 2 for row in rows)
    assert desk("run", "list", "--type", "hello", "--since", "1h", "--limit", "3", "--json").rows == rows
    table = desk("run", "list", "--limit", "1").out.splitlines()
    assert table[0].split() == ["RUN", "STATE", "TYPE", "SUBJECT", "TOOK", "TASKS", "STARTED"]
    assert "✓ completed  hello  list-2" in table[1]


def test_a_long_message_does_not_fill_the_screen(desk: Cli) -> None:
    document = json.dumps({"why": "word " * 20_000})
    waited = desk("publish", "break.me", document, "--wait", "--id", "long")
    shown, listed = desk("run", "show", "long"), desk("dead", "list", "--agent", "breaker", "--since", "1m")
    for text in (waited.out, shown.out, listed.out):
        assert "word word" in text
        assert max(map(len, text.splitlines())) < 480
    assert "… (1,000 characters)" in waited.out
    (failed,) = desk("run", "show", "long", "--json").rows[0]["failures"]
    assert len(failed["message"]) == 1_000, "all that is stored"


def test_a_state_that_no_run_has_is_exit_code_2(desk: Cli) -> None:
    done = desk("run", "list", "--state", "done")
    assert done.code == 2
    assert "expected open, paused, ended, completed, partial, stopped, failed, cancelled" in done.err


def test_a_list_without_runs_says_what_would_fill_it(project: Cli) -> None:
    project("topics", "create")
    done = project("run", "list")
    assert done.code == 0
    assert done.out == ""
    assert done.err == "No runs yet. `mesh publish TYPE JSON --follow` makes one.\n"


def test_runs_are_shown_as_they_happen(desk: Cli) -> None:
    with desk.background("run", "watch", "--count", "1", "--json") as watching:
        watching.err_until("watching for runs")
        run = published(desk, "hello", '{"name": "live"}')
        done = watching.end()
    assert done.code == 0
    assert [(row["event"], row["run"]) for row in done.rows] == [("opened", run), ("ended", run)]
    assert done.rows[1]["tasks"][0]["agent"] == "greeter"


@pytest.mark.parametrize("command", [("run", "list"), ("run", "show", "x"), ("dead", "list"), ("board", "keys")])
def test_reading_where_no_mesh_is_makes_none(project: Cli, command: tuple[str, ...]) -> None:
    done = project(*command)
    assert done.code == 3
    assert done.err == (
        "error: sqlite:.mesh/mesh.db: no mesh here yet. `mesh demo` shows one, `mesh up` starts yours\n"
    )
    assert not (project.folder / ".mesh").exists()


def test_commands_below_the_projects_folder_mean_its_mesh(desk: Cli) -> None:
    published(desk, "hello", '{"name": "deep"}')
    below = desk.at(desk.folder / "src" / "deep")
    below.folder.mkdir(parents=True, exist_ok=True)
    assert below("run", "show", "deep").code == 0
    assert not (below.folder / ".mesh").exists()


def test_a_run_decided_under_another_topology_is_reported_as_it_was(project: Cli) -> None:
    with project.up():
        run = published(project, "round.go", "{}")
    file = project.folder / "topics.yaml"
    file.write_text(file.read_text().replace("visits_max: 3", "visits_max: 2"))
    done = project("run", "show", run, "--json")
    (shown,) = done.rows
    assert (shown["state"], shown["topology_differs"]) == ("stopped", False)
    assert "4 times in this run, at most 3" in shown["refusals"][0]["message"]
    assert json.loads(done.out)["tasks"][2]["agent"] == "runner"


CHOOSING = """
mesh: {name: desk, inbox: {partitions: 1}, limits: {deadline: 60s}}
topics:
  words: {ingress: word.said, partitions: 1}
  heard: {egress: word.heard, partitions: 1}
agents:
  short: {run: "desk:hear", on: word.said, when: 'word != "x"', emits: word.heard, timeout: 5s}
  echo: {run: "desk:hear", on: word.said, emits: word.heard, timeout: 5s}
"""


def test_payloads_skipped_agents_waiting_time_and_trace_are_shown(project: Cli) -> None:
    Path(project.folder / "topics.yaml").write_text(CHOOSING)
    run = str(project("publish", "word.said", '{"word": "x"}', "--json").rows[0]["run"])
    with project.up():
        until(lambda: project("run", "list", "--state", "completed").out != "")
    (shown,) = project("run", "show", run, "--json", "--payload").rows
    (echo,) = shown["tasks"]
    assert shown["skipped"] == [
        {"agent": "short", "type": "word.said", "reason": 'word != "x" is false: word is "x"'},
    ]
    assert shown["request"]["data"] == {"word": "x"}
    assert echo["payloads"] == [{"type": "word.heard", "data": {"word": "x"}}]
    assert echo["waited_ms"] + echo["worked_ms"] == echo["took_ms"]
    assert re.fullmatch("[0-9a-f]{32}", shown["trace"])
    told = project("run", "show", run, "-v").out
    assert 'skipped short: word.said: word != "x" is false: word is "x"' in told
    section = told.partition("\npayloads\n")[2]
    assert 0 <= section.index("word.said  by the request") < section.index("word.heard  by echo")
    assert f"trace {shown['trace']}" in told
    plainly = project("run", "show", run)
    assert "payloads" not in plainly.out
    assert "payloads" not in project("run", "show", run, "--json").rows[0]["tasks"][0]


def test_runs_are_selected_by_subject_agent_tasks_and_condition(desk: Cli) -> None:
    for name in ("sel-1", "sel-2"):
        published(desk, "hello", f'{{"name": "{name}"}}')
    published(desk, "break.me", '{"why": "sel"}', "--id", "sel-3")

    def subjects(*options: str) -> list[str]:
        rows = desk("run", "list", "--subject", "sel-?", "--json", *options).rows
        return [str(row["subject"]) for row in rows]

    assert subjects() == ["sel-3", "sel-2", "sel-1"]
    assert subjects("--agent", "keeper") == ["sel-2", "sel-1"]
    assert subjects("--reason", "exception") == ["sel-3"]
    assert subjects("--tasks-min", "2", "--limit", "1") == ["sel-2"]
    assert subjects("--where", 'name == "sel-1"') == ["sel-1"]
    assert subjects("--where", 'hello.name == "sel-1" or state == "failed"') == ["sel-3", "sel-1"]
    assert subjects("--state", "ended", "--sort", "tasks")[-1] == "sel-3"
    assert subjects("--until", "@1") == []
    assert subjects("--slower-than", "1h") == []
    assert subjects("--spent-min", "0.01") == []
    assert "SPENT" in desk("run", "list", "--sort", "spent").out


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--sort", "size"], "--sort: unknown value 'size'; expected started, ended, took, tasks, spent"),
        (["--spent-min", "much"], "--spent-min: invalid value; expected US dollars"),
        (["--slower-than", "3"], "--slower-than: invalid unit"),
        (["--since", "soon"], "--since: this is not a time"),
        (["--where", "a = 1"], "--where, column 3"),
    ],
)
def test_wrong_selectors_are_told(desk: Cli, options: list[str], said: str) -> None:
    done = desk("run", "list", *options)
    assert done.code == 2
    assert said in done.err


def test_a_damaged_index_is_built_again_and_never_a_failure(project: Cli) -> None:
    with project.up():
        run = published(project, "hello", '{"name": "ann"}')
    index = project.folder / ".mesh" / "mesh.db.runs"
    assert project("run", "list", "--agent", "keeper", "--json").rows[0]["run"] == run
    whole = index.read_bytes()
    index.write_bytes(b"no database" * 500)
    shown = project("run", "show", "ann", "-v")
    assert shown.code == 0
    assert "the index of runs was built again, since it is damaged" in shown.err
    index.write_bytes(whole[:8_192] + b"\xff" * (len(whole) - 8_192))
    assert "damaged" not in project("run", "list", "--agent", "keeper").err
    assert project("run", "list", "--agent", "keeper", "--json").rows[0]["run"] == run


def test_an_index_that_cannot_be_written_is_kept_elsewhere_or_left_out(project: Cli) -> None:
    with project.up():
        run = published(project, "hello", '{"name": "ann"}')
    folder = project.folder / "index"
    for place in (str(folder), "off"):
        rows = project("run", "list", "--agent", "keeper", "--json", env={"MESH_RUN_INDEX": place}).rows
        assert [row["run"] for row in rows] == [run]
    assert [path.suffix for path in folder.iterdir() if path.suffix == ".db"] == [".db"]
    assert not (project.folder / ".mesh" / "mesh.db.runs").exists()
    folder.joinpath("file").touch()
    beside = {"MESH_RUN_INDEX": str(folder / "file")}
    assert project("run", "show", "ann", "-v", env=beside).code == 0
    data = Path(project.environ["XDG_DATA_HOME"]) / "mesh" / "runs"
    assert [path.suffix for path in data.iterdir() if path.suffix == ".db"] == [".db"]


def test_a_long_build_shows_its_progress(desk: Cli, tmp_path: Path) -> None:
    beside = {"MESH_RUN_INDEX": str(tmp_path / "index")}
    with Terminal(desk, "run", "list", "--agent", "keeper", env=beside) as shown:
        assert "records; Ctrl-C keeps what is built" in shown.end().out
