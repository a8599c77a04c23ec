"""Texts that runs share: numbered once, known again, and taken back with their transaction."""

import sqlite3
from pathlib import Path

import pytest

from mesh.adapters.sqlite.run_words import SCHEMA, TAIL, RunWords


def opened(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute(SCHEMA)
    return connection


def test_a_text_has_one_number_in_every_process(tmp_path: Path) -> None:
    one, other = opened(tmp_path / "db"), opened(tmp_path / "db")
    mine, theirs = RunWords(lambda: one), RunWords(lambda: other)
    assert [mine.number(text) for text in ("", "a", "b", "a")] == [0, 1, 2, 1]
    assert [theirs.text(number) for number in (0, 2, 1)] == ["", "b", "a"]
    assert theirs.number("c") == 3
    assert mine.number("c") == 3
    assert sorted(mine.numbers(lambda text: text != "b")) == [1, 3]
    one.close()
    other.close()


def test_a_text_of_a_step_that_was_undone_gets_a_number_again(tmp_path: Path) -> None:
    connection = opened(tmp_path / "db")
    words = RunWords(lambda: connection)
    connection.execute("BEGIN")
    assert words.number("a") == 1
    connection.execute("ROLLBACK")
    words.forget()
    assert words.number("b") == 1
    with pytest.raises(sqlite3.DatabaseError, match="text 2 is missing"):
        words.text(2)
    connection.close()


def test_new_texts_of_a_tail_are_in_no_file(tmp_path: Path) -> None:
    connection, other = opened(tmp_path / "db"), opened(tmp_path / "db")
    words = RunWords(lambda: connection)
    assert words.number("a") == 1
    connection.execute(TAIL)
    words.tail = True
    assert [words.number(text) for text in ("a", "b", "c")] == [1, -1, -2]
    assert words.text(-2) == "c"
    assert RunWords(lambda: other).numbers(lambda _: True) == [1]
    connection.close()
    other.close()
