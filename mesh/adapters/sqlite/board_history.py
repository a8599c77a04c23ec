"""The past of the embedded board, from its own history: a board in the log's file has no mirror on the log."""

from collections.abc import Iterator, Sequence
from typing import Final

from mesh.adapters.sqlite.board import TAG, UNTAGGED
from mesh.adapters.sqlite.storage.file import ReadableFile
from mesh.core.board.past_values import PastValue

PAGE: Final = 1_000
_EXISTS: Final = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'board_past'"
_PAGE: Final = (
    "SELECT seq, key, value, incarnation || ':' || seq, at_ms, by, gone FROM board_past"
    " WHERE seq > ? AND at_ms <= ? ORDER BY seq LIMIT ?"
)


def read_past_values(file: ReadableFile, prefix: str, until_ms: int) -> Iterator[PastValue]:
    """Yield the values that the board of a mesh got up to a time in milliseconds, in their order.

    The history of a key holds at most 1,000 values and 1 MiB. Raises LogUnavailable.
    """
    tag = "" if prefix == UNTAGGED else f"{TAG}{prefix}{TAG}"
    if file.read(lambda connection: connection.execute(_EXISTS).fetchone(), operation="board") is None:
        return
    after = 0
    while page := _page(file, after, until_ms):
        after = page[-1][0]
        for _, stored, value, version, at_ms, by, gone in page:
            key = stored.removeprefix(tag)
            if not key.startswith(TAG) and (not tag or key != stored):
                yield PastValue(key, None if gone else value, version, at_ms, by)


def _page(file: ReadableFile, after: int, until_ms: int) -> Sequence[tuple[int, str, bytes, str, int, str, int]]:
    found: Sequence[tuple[int, str, bytes, str, int, str, int]] = file.read(
        lambda connection: connection.execute(_PAGE, (after, until_ms, PAGE)).fetchall(), operation="board"
    )
    return found
