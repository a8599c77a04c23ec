"""One SQLite file, opened so that nothing is written to it and no other file is made beside it.

The rules of SQLite for files with a write-ahead log (WAL) decide how it is opened (https://sqlite.org/wal.html#readonly).
While the WAL is there (a process has the file open, or was killed), the connection is read-only, and sees each commit.
Its index of the WAL (-shm) is opened read-only, too, also where this user may write it. A copy without -shm gets one.
Without a WAL such a connection would make one, or fail where it may not. So the file is opened as immutable, which
takes no lock. A mesh that starts meanwhile makes a WAL before it changes the file: then the file is opened again.
"""

import asyncio
import sqlite3
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple, TypeVar
from urllib.parse import quote

from mesh.adapters.sqlite.storage.clock import FileClock
from mesh.adapters.sqlite.storage.failure import unavailable
from mesh.adapters.sqlite.storage.file import FORMAT, expect_format
from mesh.adapters.sqlite.storage.wake import Wakeup
from mesh.core.errors import LogUnavailable, NotFound

T = TypeVar("T")

POLL_S = 0.1
_BUSY_S = 1.0


class _Stamp(NamedTuple):
    """The file as the operating system shows it. It differs after every change."""

    inode: int
    size: int
    changed_ns: int


class ReadOnlyFile:
    """A connection that only reads, and wake-ups by polling. Used from one event loop."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.clock = FileClock()
        self._wal = Path(f"{self.path}-wal")
        self._shm = Path(f"{self.path}-shm")
        self._reads: sqlite3.Connection | None = None
        self._immutable: _Stamp | None = None
        """The file when it was opened as immutable; None if it was opened with its WAL."""
        self._version = -1
        self._wakeups: list[Wakeup] = []
        self._timer: asyncio.TimerHandle | None = None

    async def start(self) -> None:
        """Open the file. Raises NotFound if it does not exist or holds no log, LogUnavailable, ConfigInvalid for a file
        of another version."""
        if self._reads is not None:
            return
        if not self.path.is_file():
            raise NotFound("there is no such file", where=str(self.path), expected="the mesh's embedded file")
        self._open()
        if self.read(lambda connection: expect_format(connection), operation="open") != FORMAT:
            await self.close()
            raise NotFound("the file holds no log of a mesh yet", where=str(self.path))
        self._timer = asyncio.get_running_loop().call_later(POLL_S, self._poll)

    async def close(self) -> None:
        """Close the connection; wake all that wait."""
        if self._timer is not None:
            self._timer.cancel()
        if self._reads is not None:
            self._reads.close()
            self._reads = None
        for wakeup in tuple(self._wakeups):
            wakeup.set()

    def read(self, job: Callable[[sqlite3.Connection], T], *, operation: str = "read") -> T:
        """Run `job` at once on the caller's own thread. Raises LogUnavailable; see `SqliteFile.read`."""
        if self._reads is None:
            raise LogUnavailable(
                f"{operation} failed: the file is not open", where=str(self.path), remedy="Call start() first"
            )
        if self._immutable is not None and (self._wal.exists() or self._stamp() != self._immutable):
            self._reads.close()
            self._open()
        try:
            result = job(self._reads)
        except sqlite3.Error as error:
            raise unavailable(LogUnavailable, error, operation=operation, where=str(self.path)) from error
        if self._immutable is not None and self._stamp() != self._immutable:
            raise LogUnavailable("the file was changed while it was read", where=str(self.path), remedy="Try again")
        return result

    def subscribe(self, channels: Iterable[int] | None = None) -> Wakeup:
        """Return an event that is set within `POLL_S` after a commit of any process; see `SqliteFile.subscribe`."""
        wakeup = Wakeup(channels, self._wakeups.remove)
        self._wakeups.append(wakeup)
        return wakeup

    def _open(self) -> None:
        """Open the file with its WAL, or as immutable if there is none. Raises LogUnavailable."""
        self._immutable = None if self._wal.exists() else self._stamp()
        mode = "readonly_shm=1" if self._shm.exists() else ""
        if self._immutable is not None:
            mode = "immutable=1"
        address = f"file:{quote(str(self.path.absolute()))}?mode=ro&{mode}"
        try:
            self._reads = sqlite3.connect(address, uri=True, isolation_level=None, timeout=_BUSY_S)
            self._reads.execute("PRAGMA schema_version").fetchone()
        except sqlite3.Error as error:
            found = unavailable(LogUnavailable, error, operation="open for reading", where=str(self.path))
            if self._immutable is None:
                found.remedy = f"Give this user read permission on {self.path.name}, its -wal and its -shm"
            raise found from error

    def _stamp(self) -> _Stamp:
        try:
            found = self.path.stat()
        except OSError as error:
            raise LogUnavailable("the file is gone", where=str(self.path), got=error.strerror or str(error)) from error
        return _Stamp(found.st_ino, found.st_size, found.st_mtime_ns)

    def _poll(self) -> None:
        """Wake all subscribers if a process has committed since the last call."""
        self._timer = asyncio.get_running_loop().call_later(POLL_S, self._poll)
        if not self._wakeups:
            return
        try:
            version = self.read(lambda connection: int(connection.execute("PRAGMA data_version").fetchone()[0]))
        except LogUnavailable:
            version = -1  # the subscribers read for themselves, and report the error
        if version != self._version or version == -1:
            self._version = version
            for wakeup in self._wakeups:
                wakeup.offer(None)
