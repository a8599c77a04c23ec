"""The changes of a board in the log's own file, which has no mirror on the log."""

from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING

from mesh.adapters.ports import ReadLog
from mesh.core.board.past_values import PastValue
from mesh.core.topology.model import Topology

if TYPE_CHECKING:
    from mesh.settings import Settings


def embedded_changes(
    log: ReadLog, topology: Topology, settings: "Settings"
) -> Callable[[int], Iterable[PastValue]] | None:
    """Return a reader of the values up to a time in milliseconds; None if the board is not in the log's file."""
    if not log.url.startswith("sqlite:") or settings.board not in ("", settings.log):
        return None
    from mesh.adapters.sqlite.board_history import read_past_values
    from mesh.adapters.sqlite.read_log import StoredTopics

    if not isinstance(log, StoredTopics):
        return None
    return partial(read_past_values, log.readable, settings.board_prefix or topology.prefix)
