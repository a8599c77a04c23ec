"""`mesh board`: keys, get, put, history, watch."""

import json

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
    assert "board key 'notes/b' was changed by somebody else" in stale.err
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
