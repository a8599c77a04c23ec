"""Log and Board in one SQLite file, for several processes on one machine. The only package that imports sqlite3."""

from mesh.adapters.sqlite.board import SqliteBoard
from mesh.adapters.sqlite.log import SqliteLog
from mesh.adapters.sqlite.read_log import SqliteReadLog
from mesh.adapters.sqlite.storage.file import BOARD_CHANNEL, SqliteFile
from mesh.adapters.sqlite.storage.wake import Wakeup

__all__ = ["BOARD_CHANNEL", "SqliteBoard", "SqliteFile", "SqliteLog", "SqliteReadLog", "Wakeup"]
