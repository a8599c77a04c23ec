"""Texts that many runs share, each stored once: types, endings, and lists of agents and of reason codes.

A row of the index holds their numbers, so that a scan of one small index answers most queries. Number 0 is "". A
process that may not write the file numbers new texts downwards from -1, in a temporary table of its own.
"""

import sqlite3
from collections.abc import Callable, Iterable
from typing import Final

SCHEMA: Final = "CREATE TABLE IF NOT EXISTS words (number INTEGER PRIMARY KEY, text TEXT NOT NULL UNIQUE)"
TAIL: Final = "CREATE TEMP TABLE IF NOT EXISTS tail_words (number INTEGER PRIMARY KEY, text TEXT NOT NULL UNIQUE)"


class RunWords:
    """The numbered texts of an index. They are read once, and again for a number that another process added."""

    def __init__(self, connected: Callable[[], sqlite3.Connection]) -> None:
        self._connected = connected
        self._numbers: dict[str, int] = {}
        self._texts: dict[int, str] = {}
        self.tail = False
        """Whether new texts are for this process alone."""

    def number(self, text: str) -> int:
        """Return the number of a text; a new text is added within the transaction of the caller."""
        if not text:
            return 0
        found = self._numbers.get(text)
        if found is None:
            self._read()
            found = self._numbers.get(text)
        return self._add(text) if found is None else found

    def text(self, number: int) -> str:
        """Return the text of a number. Raises DatabaseError if the file lacks it."""
        if not number:
            return ""
        if number not in self._texts:
            self._read()
        if number not in self._texts:
            raise sqlite3.DatabaseError(f"text {number} is missing")
        return self._texts[number]

    def numbers(self, wanted: Callable[[str], bool]) -> list[int]:
        """Return the numbers of the texts for which `wanted` holds."""
        self._read()
        return [number for text, number in self._numbers.items() if wanted(text)]

    def forget(self) -> None:
        """Forget what was added: its transaction was undone, or the file was closed."""
        self._numbers, self._texts = {}, {}

    def _add(self, text: str) -> int:
        table, least = (
            ("temp.tail_words", "min(0, min(number)) - 1") if self.tail else ("main.words", "max(number) + 1")
        )
        statement = f"INSERT INTO {table} SELECT coalesce({least}, ?), ? FROM {table} RETURNING number"
        ((number,),) = self._connected().execute(statement, (-1 if self.tail else 1, text)).fetchall()
        self._know([(number, text)])
        return int(number)

    def _read(self) -> None:
        for table in ("main.words", *(("temp.tail_words",) if self.tail else ())):
            self._know(self._connected().execute(f"SELECT number, text FROM {table}").fetchall())

    def _know(self, rows: Iterable[tuple[int, str]]) -> None:
        for number, text in rows:
            self._numbers.setdefault(text, number)
            self._texts[number] = text
