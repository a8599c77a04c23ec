"""`mesh board`: keys, get, put, history, watch, rebuild."""

import json
import shutil
import signal

import pytest

from tests.cli.conftest import Cli


def test_values_are_written_read_and_remembered(desk: Cli) -> None:
    (first,) = desk("board", "put", "notes/a", '{"n": 1}', "--absent", "--json").rows
    assert (first["key"], first["value"]) == ("notes/a", {"n": 1})
    assert first["by"].startswith("cli/")
    (second,) = desk("board", "put", "notes/a", "-", "--expect", first["version"], "--json", input='{"n": 2}').rows
    assert desk("board", "get", "notes/a", "--json").rows == [second]
    assert desk("board", "get", "notes/a").out == '{\n  "n": 2\n}\n'
    assert [row["value"]["n"] for row in desk("board", "history", "notes/a", "--json").rows] == [2, 1]
    assert desk("board", "keys", "notes/*").out == "notes/a\n"


def test_a_version_that_no_longer_stands_is_exit_code_5(desk: Cli) -> None:
    desk("board", "put", "notes/b", "1")
    stale = desk("board", "put", "notes/b", "2", "--absent")
    assert stale.code == 5
    assert "another writer changed board key 'notes/b'" in stale.err
    assert desk("board", "get", "notes/b").out == "1\n"


def test_what_is_no_value_or_no_key_is_exit_code_2_and_nothing_there_3(desk: Cli) -> None:
    assert desk("board", "put", "notes/c", "{").code == 2
    assert desk("board", "put", "no key", "1").code == 2
    assert desk("board", "get", "notes/nothing").code == 3


def test_a_store_that_cannot_be_reached_is_exit_code_4(desk: Cli) -> None:
    done = desk("board", "get", "x", "--board", "redis://:secret@127.0.0.1:1")
    assert done.code == 4
    assert "redis://" in done.err
    assert "secret" not in done.err


def test_changes_are_shown_as_they_happen(desk: Cli) -> None:
    with desk.background("board", "watch", "greetings/*", "--count", "1", "--json") as watching:
        watching.err_until("watching the board")
        desk("publish", "hello", '{"name": "lea"}', "--wait")
        done = watching.end()
    assert done.code == 0
    assert json.loads(done.out)["value"] == {"name": "lea"}


# ----------------------------------------------------------------------------- a board that is not in the log's file

ELSEWHERE = ("--board", "sqlite:board.db")


@pytest.fixture
def apart(project: Cli) -> Cli:
    """A project whose topics are there, and whose board will be in a file of its own."""
    assert project("topics", "create").code == 0
    return project


def lose(apart: Cli) -> None:
    """The store of the board comes back empty."""
    for path in apart.folder.glob("board.db*"):
        path.unlink() if path.is_file() else shutil.rmtree(path)


def test_what_the_board_lost_is_shown_first_and_put_back_with_yes(apart: Cli) -> None:
    for n in range(3):
        assert apart("board", "put", "limits/a", str(n), *ELSEWHERE).code == 0
    apart("board", "put", "limits/b", '{"n": 1}', *ELSEWHERE)
    whole = apart("board", "rebuild", *ELSEWHERE)
    assert (whole.code, whole.out, whole.err) == (0, "", "All 2 keys are there: nothing to write.\n")
    lose(apart)
    planned = apart("board", "rebuild", *ELSEWHERE)
    assert planned.code == 0
    assert planned.err == "2 keys of 2 would be written; --yes does it\n"
    assert [line.split()[:3] for line in planned.out.splitlines()[2:]] == [
        ["limits/a", "2", "nothing"],
        ["limits/b", '{"n":', "1}"],
    ]
    assert apart("board", "keys", *ELSEWHERE).out == "", "a plan writes nothing"
    done = apart("board", "rebuild", "--yes", *ELSEWHERE)
    assert (done.code, done.out) == (0, "✓ 2 keys written\n")
    assert apart("board", "get", "limits/a", *ELSEWHERE).out == "2\n"
    assert apart("board", "rebuild", "--yes", *ELSEWHERE).err == "All 2 keys are there: nothing to write.\n"


def test_what_is_newer_on_the_board_is_reported_and_left_alone(apart: Cli) -> None:
    for key in ("a", "b", "other/c"):
        apart("board", "put", key, "1", *ELSEWHERE)
    lose(apart)
    apart("board", "put", "b", "9", "--board", "sqlite:board.db", "--log", "sqlite:nowhere.db")
    planned = apart("board", "rebuild", "?", "--json", *ELSEWHERE)
    assert [(row["key"], row["plan"], row["value"], row["stands"]) for row in planned.rows] == [
        ("a", "write", 1, None),
        ("b", "newer", 1, 9),
    ]
    done = apart("board", "rebuild", "?", "--yes", "--json", *ELSEWHERE)
    assert done.code == 0
    assert [(row["key"], row.get("written"), row.get("plan")) for row in done.rows] == [
        ("b", None, "newer"),
        ("a", True, None),
    ]
    assert apart("board", "keys", *ELSEWHERE).out == "a\nb\n"
    assert apart("board", "get", "b", *ELSEWHERE).out == "9\n"


def test_a_value_that_could_not_be_mirrored_stands_and_says_so(apart: Cli) -> None:
    done = apart("board", "put", "a", "1", "--board", "sqlite:board.db", "--log", "sqlite:nowhere.db")
    assert done.code == 0
    assert done.out.startswith("written")
    assert "not mirrored on the log: sqlite:nowhere.db: no mesh here yet" in done.err


def test_a_board_in_the_logs_own_file_needs_no_rebuilding(desk: Cli) -> None:
    done = desk("board", "rebuild")
    assert (done.code, done.out) == (0, "")
    assert "is lost only with it" in done.err
    assert "No restart of the board is known" in desk("board", "history").err


def test_without_the_topic_rebuild_says_what_is_missing(project: Cli) -> None:
    project("board", "put", "a", "1")
    done = project("board", "rebuild", *ELSEWHERE)
    assert done.code == 3
    assert "mesh.board" in done.err


def test_a_lost_board_is_reported_by_up_put_back_and_shown_afterwards(apart: Cli) -> None:
    with apart.up(*ELSEWHERE) as running:
        apart("publish", "hello", '{"name": "lea"}', "--wait", *ELSEWHERE)
        before = json.loads(apart("board", "get", "greetings/lea", "--json", *ELSEWHERE).out)
        running.signal(signal.SIGTERM)
        running.end()
    lose(apart)
    with apart.up(*ELSEWHERE) as running:
        running.err_until("began a new incarnation")
        running.err_until("lost values of the board were restored")
        running.signal(signal.SIGTERM)
        running.end()
    (restart,) = apart("board", "history", "--json", *ELSEWHERE).rows
    assert restart["old"] == before["version"].partition(":")[0]
    shown = apart("board", "history", *ELSEWHERE)
    assert f"after {restart['old']}" in shown.out
    assert "mesh board rebuild" in shown.err
    assert apart("board", "get", "greetings/lea", "--json", *ELSEWHERE).rows[0]["value"] == before["value"]
    lose(apart)
    assert apart("board", "rebuild", "--yes", *ELSEWHERE).out == "✓ 1 key written\n", "without a worker"
