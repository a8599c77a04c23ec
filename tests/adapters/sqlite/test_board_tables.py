"""Rows of the board, inside one transaction."""

import sqlite3
from collections.abc import Iterator

import pytest

from mesh.adapters.ports import ANY
from mesh.adapters.sqlite import board_tables as rows
from mesh.core.board.rules import HISTORY_MAX, OPS_TTL_MS
from mesh.core.errors import Conflict, InvalidInput

AT_MS = 1_700_000_000_000


@pytest.fixture
def connection() -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(":memory:")
    for statement in rows.SCHEMA:
        connection.execute(statement)
    rows.begin_incarnation(connection, "inode-1", "first")
    yield connection
    connection.close()


def write(key: str = "k", op_id: str = "", kind: str = "put", at_ms: int = AT_MS) -> rows.BoardWrite:
    return rows.BoardWrite(kind, key, key, "pricing/t1", op_id, at_ms)


def test_another_file_begins_another_incarnation_and_the_same_one_does_not(connection: sqlite3.Connection) -> None:
    rows.begin_incarnation(connection, "inode-1", "second")
    assert rows.incarnation(connection) == "first"
    rows.begin_incarnation(connection, "inode-2", "second")
    assert rows.incarnation(connection) == "second"


def test_a_stored_value_is_the_newest_one_and_its_version_is_expected(connection: sqlite3.Connection) -> None:
    first = rows.store(connection, write(), rows.newest(connection, "k"), b"1")
    second = rows.store(connection, write(), rows.expected(connection, write(), first.version), b"2")
    assert rows.newest(connection, "k").value == b"2"
    assert second.version == f"first:{rows.position(connection)}"
    with pytest.raises(Conflict):
        rows.expected(connection, write(), first.version)


def test_a_deleted_value_has_no_version(connection: sqlite3.Connection) -> None:
    rows.store(connection, write(), rows.newest(connection, "k"), b"1")
    rows.store(connection, write(), rows.expected(connection, write(), ANY), b"null", gone=True)
    found = rows.newest(connection, "k")
    assert (found.value, found.version) == (None, "")


def test_history_keeps_the_latest_values(connection: sqlite3.Connection) -> None:
    for number in range(HISTORY_MAX + 3):
        rows.store(connection, write(), rows.newest(connection, "k"), b"%d" % number)
    kept = [int(value) for (value,) in connection.execute("SELECT value FROM board_past ORDER BY nth")]
    assert kept == list(range(3, HISTORY_MAX + 3))


def test_an_answer_is_remembered_under_its_op_id_until_it_is_old(connection: sqlite3.Connection) -> None:
    rows.remember(connection, write(op_id="op"), [7])
    assert rows.first_answer(connection, write(op_id="op")) == [7]
    assert rows.first_answer(connection, write(op_id="other")) is None
    with pytest.raises(InvalidInput):
        rows.first_answer(connection, write(op_id="op", kind="add"))
    rows.remember(connection, write(op_id="later", at_ms=AT_MS + OPS_TTL_MS + 1), [8])
    assert rows.first_answer(connection, write(op_id="op")) is None
