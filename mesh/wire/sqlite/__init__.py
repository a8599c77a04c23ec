"""Log and Board in one SQLite file, for several processes on one machine. The only package that imports sqlite3."""

from mesh.wire.sqlite.board import SqliteBoard
from mesh.wire.sqlite.file import BOARD_CHANNEL, SqliteFile
from mesh.wire.sqlite.log import SqliteLog
from mesh.wire.sqlite.wake import Wakeup

__all__ = ["BOARD_CHANNEL", "SqliteBoard", "SqliteFile", "SqliteLog", "Wakeup"]
