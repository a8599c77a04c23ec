"""The values that the embedded board had, read from its own history."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mesh.adapters.sqlite import SqliteBoard, board_history
from mesh.adapters.sqlite.board_history import read_past_values
from mesh.adapters.sqlite.storage.file import SqliteFile


@pytest.fixture
async def file(tmp_path: Path) -> AsyncIterator[SqliteFile]:
    opened = SqliteFile(tmp_path / "mesh.db")
    await opened.start(())
    yield opened
    await opened.close()


def shown(file: SqliteFile, prefix: str = "mesh", until_ms: int = 2**60) -> list[tuple[str, bytes | None, str]]:
    return [(found.key, found.value, found.by) for found in read_past_values(file, prefix, until_ms)]


async def test_every_value_and_deletion_comes_in_its_order(file: SqliteFile, monkeypatch: pytest.MonkeyPatch) -> None:
    assert shown(file) == []  # no board was ever there
    monkeypatch.setattr(board_history, "PAGE", 2)
    board, other = SqliteBoard(file), SqliteBoard(file, prefix="other")
    await board.start()
    await other.start()
    await board.put("a", b"1", by="x/1")
    await other.put("a", b"8", by="y/1")
    entry = await board.put("b", b"2", by="x/2")
    await board.put("a", b"3", by="x/3")
    await board.delete("b", by="x/4")
    found = [("a", b"1", "x/1"), ("b", b"2", "x/2"), ("a", b"3", "x/3"), ("b", None, "x/4")]
    assert shown(file) == found
    assert shown(file, "other") == [("a", b"8", "y/1")]
    past = list(read_past_values(file, "mesh", 2**60))
    assert (past[1].version, past[1].at_ms) == (entry.version, entry.at_ms)
    assert shown(file, until_ms=past[0].at_ms - 1) == []
    await board.close()
    await other.close()
