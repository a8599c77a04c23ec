"""`mesh run export`, and the reading commands on its file."""

import signal
from pathlib import Path

import orjson
import pytest

from tests.cli.conftest import Cli, until


def published(cli: Cli, type: str, payload: str, *options: str) -> str:
    """The id of a run that has ended."""
    return str(cli("publish", type, payload, "--wait", "--json", *options).rows[0]["run"])


@pytest.fixture
def recording(desk: Cli, tmp_path: Path) -> Path:
    """A recording of one run, in a folder without a mesh."""
    run = published(desk, "round.go", "{}")
    done = desk("run", "export", run)
    assert done.code == 0
    assert "exported" in done.err
    (tmp_path / "far").mkdir()
    path = tmp_path / "far" / "run.jsonl"
    path.write_text(done.out)
    return path


def test_every_reading_command_takes_the_file_without_a_mesh(desk: Cli, recording: Path) -> None:
    far, log = desk.at(recording.parent), ("--log", "recording:run.jsonl")
    before = recording.read_bytes()
    (row,) = far("run", "list", "--json", *log).rows
    run = str(row["run"])
    assert row["state"] == "stopped"
    here, there = desk("run", "show", run, "--json"), far("run", "show", run, "--json", *log)
    assert there.rows == here.rows
    for words in (["replay", "run.jsonl"], ["replay", run, *log], ["replay", "run.jsonl", "--check"], ["verify", *log]):
        done = far(*words)
        assert (done.code, "run.jsonl" in done.err) == (0, False), done
    assert far("replay", "run.jsonl", "--json").rows == far("replay", run, "--json", *log).rows
    assert far("topics", "read", "inbox", "--json", *log).rows
    assert recording.read_bytes() == before
    assert [one.name for one in recording.parent.iterdir()] == ["run.jsonl"]


def test_a_redriven_run_is_told_as_on_the_log(desk: Cli, tmp_path: Path) -> None:
    run = published(desk, "break.me", '{"why": "glass"}', "--id", f"again-{tmp_path.name}")
    assert desk("dead", "redrive", "--run", run, "--yes", "--wait").code in (0, 1)  # it fails again
    (tmp_path / "run.jsonl").write_text(desk("run", "export", run).out)
    far = desk.at(tmp_path)
    here, there = desk("replay", run, "--json"), far("replay", "run.jsonl", "--json")
    assert [row["kind"] for row in there.rows[1:]].count("redriven") == 1
    assert there.rows == here.rows
    checked = far("replay", "run.jsonl", "--check")
    assert (checked.code, "nothing diverges" in checked.out) == (0, True), checked


def test_a_command_that_writes_refuses_the_file(desk: Cli, recording: Path) -> None:
    done = desk.at(recording.parent)("run", "cancel", "x", "--log", "recording:run.jsonl")
    assert done.code == 2
    assert "a recording can only be read" in done.err


def test_runs_are_chosen_by_condition_and_time(desk: Cli, tmp_path: Path) -> None:
    published(desk, "round.go", "{}", "--id", "chosen-1")
    published(desk, "round.go", "{}", "--id", "other-1")
    lines = [orjson.loads(line) for line in desk("run", "export", "--where", "id == 'chosen-1'").out.splitlines()]
    assert lines[0]["chosen"]["where"] == "id == 'chosen-1'"
    assert lines[0]["chosen"]["runs"] == 1
    assert {line["id"] for line in lines[1:-1] if line.get("meshkind") == "requested"} == {"chosen-1"}
    assert desk("run", "export", "--since", "1h").code == 0


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        ([], 2, "no run is chosen"),
        (["x", "--since", "1h"], 2, "one run is chosen, and a condition or a time span"),
        (["no-such-run"], 3, "no run goes by 'no-such-run'"),
        (["--where", "id == 'no-such-id'"], 3, "no run has a request that fits"),
        (["x", "--redact", "a..b"], 2, "--redact, column 2"),
        (["x", "--log", "recording:none.jsonl"], 3, "there is no such file"),
    ],
)
def test_misuse_is_explained(desk: Cli, words: list[str], code: int, text: str) -> None:
    done = desk("run", "export", *words)
    assert text in done.err
    assert (done.code, done.out) == (code, "")


def test_a_file_that_is_cut_is_read_and_reported(desk: Cli, recording: Path) -> None:
    whole = recording.read_bytes().splitlines(keepends=True)
    recording.write_bytes(b"".join(whole[:4]) + whole[4][:20])
    done = desk.at(recording.parent)("replay", "run.jsonl")
    assert done.code == 0
    text = "recording:run.jsonl: it is cut: it ends within line 5; only the records before that are read"
    assert " ".join(done.err.split()).count(text) == 1


def test_a_damaged_file_is_refused_with_its_line(desk: Cli, recording: Path) -> None:
    recording.write_bytes(recording.read_bytes().replace(b'\n{"topic"', b'\n{"topic', 2))
    done = desk.at(recording.parent)("replay", "run.jsonl")
    assert done.code == 2
    assert "run.jsonl:2: the line is no JSON" in done.err


def test_an_export_that_is_killed_leaves_a_file_that_is_cut(project: Cli, tmp_path: Path) -> None:
    with project.up():
        for n in range(40):
            project("publish", "round.go", "{}", "--id", f"r{n}")
        until(lambda: len(project("run", "list", "--state", "stopped", "--limit", "100", "--json").rows) == 40)
    with project.background("run", "export", "--since", "1h") as running:
        running.out_until('"topic":"')
        running.process.send_signal(signal.SIGKILL)
        running.process.wait(30)
        text = running.out_until("")
    path = tmp_path / "cut.jsonl"
    path.write_text(text[: text.rindex("\n")])
    done = project("run", "list", "--log", f"recording:{path}", "--json")
    assert done.code == 0
    assert "it is cut" in done.err
