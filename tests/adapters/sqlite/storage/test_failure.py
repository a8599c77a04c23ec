"""The meaning of SQLite's errors to a caller."""

import sqlite3

import pytest

from mesh.adapters.sqlite.storage.failure import is_busy, late, primary_name, unavailable
from mesh.core.errors import BoardUnavailable, LogUnavailable, Unavailable


def error_named(name: str) -> sqlite3.OperationalError:
    error = sqlite3.OperationalError("as SQLite says")
    error.sqlite_errorname = name
    return error


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("SQLITE_BUSY", "locked by another process"),
        ("SQLITE_BUSY_RECOVERY", "locked by another process"),
        ("SQLITE_FULL", "the disk is full"),
        ("SQLITE_READONLY_DIRECTORY", "cannot be written"),
        ("SQLITE_NOTADB", "no SQLite database"),
        ("SQLITE_CORRUPT_VTAB", "damaged"),
        ("SQLITE_IOERR_WRITE", "refused to read or write"),
        ("SQLITE_CANTOPEN", "cannot be opened"),
        ("SQLITE_MISUSE", "SQLite refused"),
    ],
)
def test_every_error_is_said_in_words_with_its_operation_and_file(name: str, words: str) -> None:
    said = str(unavailable(LogUnavailable, error_named(name), operation="append", where="a/mesh.db"))
    for part in (words, name, "append", "a/mesh.db", "as SQLite says"):
        assert part in said


def test_the_kind_is_the_callers() -> None:
    assert type(unavailable(BoardUnavailable, error_named("SQLITE_FULL"), operation="put", where="f")) is (
        BoardUnavailable
    )
    error = late(BoardUnavailable, operation="put", where="f", timeout_ms=250)
    assert isinstance(error, Unavailable)
    assert "250 ms" in str(error)


def test_only_a_lock_is_worth_waiting_for() -> None:
    assert is_busy(error_named("SQLITE_BUSY_SNAPSHOT"))
    assert is_busy(error_named("SQLITE_LOCKED"))
    assert not is_busy(error_named("SQLITE_FULL"))
    assert not is_busy(sqlite3.OperationalError("no name"))


def test_the_primary_name_is_the_first_two_words() -> None:
    assert primary_name(error_named("SQLITE_IOERR_SHORT_READ")) == "SQLITE_IOERR"
    assert primary_name(sqlite3.ProgrammingError()) == ""
