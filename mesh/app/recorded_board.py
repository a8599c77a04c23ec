"""The past of a mesh's board, wherever it is stored: in the log's own file, or mirrored on the log."""

from collections.abc import AsyncGenerator, Iterable
from contextlib import asynccontextmanager
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from mesh.adapters.ports import ReadLog
from mesh.adapters.sqlite.stored_past import StoredPast
from mesh.app.agent_replay import FOLDER_PREFIX
from mesh.core.board.past_values import PastValue
from mesh.core.topology.model import Topology
from mesh.operations.replay.past_board import read_past_into
from mesh.operations.replay.task_answers import Period

if TYPE_CHECKING:
    from mesh.settings import Settings

END_MS = 2**53
"""Later than every time of a log."""


@asynccontextmanager
async def recorded_board(
    log: ReadLog, topology: Topology, settings: "Settings", period: Period
) -> AsyncGenerator[StoredPast]:
    """Give the board as it stood at any time of a period, in a temporary file. Raises LogUnavailable."""
    embedded: Iterable[PastValue] = ()
    if log.url.startswith("sqlite:") and settings.board in ("", settings.log):
        from mesh.adapters.sqlite.board_history import read_past_values
        from mesh.adapters.sqlite.read_log import StoredTopics

        if isinstance(log, StoredTopics):
            until_ms = END_MS if period.until_ms is None else period.until_ms
            embedded = read_past_values(log.readable, settings.board_prefix or topology.prefix, until_ms)
    with TemporaryDirectory(prefix=FOLDER_PREFIX) as folder, StoredPast(period.since_ms or 0, f"{folder}/past") as past:
        await read_past_into(past, log, topology, period, embedded)
        yield past
