"""mesh.board on a real log, read."""

from pathlib import Path

from mesh.adapters.ports import Log
from mesh.adapters.sqlite import SqliteBoard
from mesh.core.protocol.record import NewRecord
from mesh.runtime.board_changelog import is_mirrored, read_mirror
from tests.runtime.changelog_kit import CLOCK, ECHO, board, change, log, tell, versions

__all__ = ["board", "log"]  # fixtures


async def test_a_board_beside_the_log_has_no_mirror_and_one_elsewhere_has(tmp_path: Path, log: Log) -> None:
    assert not is_mirrored(log, SqliteBoard(tmp_path / "mesh.db"))
    assert is_mirrored(log, SqliteBoard(tmp_path / "board.db"))


async def test_all_changes_are_read_and_invalid_records_are_skipped(log: Log) -> None:
    assert versions(await read_mirror(log, CLOCK, ECHO)) == {}
    await tell(log, change("a", "aa:1"), change("b", "aa:3"), change("b", "aa:2"))
    await log.append([NewRecord(ECHO.board, b"c", b"1", [("ce_type", b"noise")], 0)])
    mirror = await read_mirror(log, CLOCK, ECHO)
    assert versions(mirror) == {"a": "aa:1", "b": "aa:3"}
    assert mirror.newest()["a"].change.value == b"1"
