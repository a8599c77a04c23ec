"""One SQLite file, shared by the log, the board and several processes on one machine.

Durability: with `NORMAL`, acknowledged writes survive `kill -9` of any process at any time. After a loss of power the
last commits may be missing, but the file stays sound. With `FULL`, every commit is flushed to disk first. A process
that uses the file must not open it by other means: closing such a descriptor drops SQLite's locks.
"""

import asyncio
import sqlite3
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Literal, Protocol, TypeVar

from mesh.adapters.diagnostics import diagnostics
from mesh.adapters.machine_limits import environment_fault
from mesh.adapters.private_files import close_off, make_file, make_folder
from mesh.adapters.sqlite.storage.clock import FileClock
from mesh.adapters.sqlite.storage.connection import (
    WAL_BYTES_MAX,
    open_checkpointing,
    open_reading,
    open_writing,
    restart_wal,
)
from mesh.adapters.sqlite.storage.failure import unavailable
from mesh.adapters.sqlite.storage.wake import WakePipe, Wakeup
from mesh.adapters.sqlite.storage.wal_checkpoint import Checkpointer
from mesh.adapters.sqlite.storage.writer import JobResults, WriteJob, WriterThread
from mesh.core.errors import ConfigInvalid, EnvironmentFault, LogUnavailable, Unavailable

T = TypeVar("T")

BOARD_CHANNEL = 0
"""Default channel of a write. The log uses positive channels for partitions and negative ones for groups."""

FORMAT = 2
"""Version of the tables, in the file's `user_version`. A file of another version is refused."""

FOLDER_NAME = ".mesh"
"""Folder of the default address of the file. All files in it belong to the mesh."""

_log = diagnostics("sqlite")
_OPEN_TIMEOUT_S = 15.0
_OPEN_REMEDY = "Check that the directory exists and that this user may write in it"
_CLOSE_TIMEOUT_S = 5.0
_SAFETY_POLL_S = 0.1
_WAL_CHECK_S = 0.25


class ReadableFile(Protocol):
    """A file that is open for reading: what readers of records need."""

    path: Path

    def read(self, job: Callable[[sqlite3.Connection], T], *, operation: str = "read") -> T: ...
    def subscribe(self, channels: Iterable[int] | None = None) -> Wakeup: ...


class SqliteFile:
    """Connections, the writer thread and wake-ups of one file. Used from one event loop.

    Every user (log, board) calls `start` and `close`; the last `close` releases the file.
    """

    def __init__(self, path: str | Path, *, synchronous: Literal["NORMAL", "FULL"] = "NORMAL") -> None:
        self.path = Path(path)
        self.clock = FileClock()
        """The clock of all writes, once `agree_on_time` has been called."""
        self._synchronous = synchronous
        self._users = 0
        self._opening = asyncio.Lock()
        self._writer: WriterThread | None = None
        self._reads: sqlite3.Connection | None = None
        self._checkpointer: Checkpointer | None = None
        self._pipe = WakePipe(Path(f"{self.path}.wake"))
        self._pipe_fd = -1
        self._wakeups: list[Wakeup] = []
        self._version = -1
        self._timer: asyncio.TimerHandle | None = None
        self._wal_checked_at = 0.0

    # ------------------------------------------------------------------------------------------------- open, close

    async def start(self, schema: Sequence[str] = (), *, kind: type[Unavailable] = LogUnavailable) -> None:
        """Open the file, or make it and its directory, and run `schema` (`CREATE … IF NOT EXISTS`).

        Safe when several processes do it at once. Raises `kind` when the file cannot be opened or is no database,
        ConfigInvalid when another version of this package wrote it.
        """
        async with self._opening:
            if self._writer is None:
                await self._open(kind)
            self._users += 1
        try:
            await self.write(
                lambda connection: _create(connection, schema), operation="open", kind=kind, wakes=(), timeout_ms=10_000
            )
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Release the file when the last user closes, after all waiting writes. Always returns within 10 s."""
        async with self._opening:
            self._users -= 1
            if self._users > 0 or self._writer is None:
                self._users = max(self._users, 0)
                return
            writer, self._writer = self._writer, None
            if self._timer is not None:
                self._timer.cancel()
            asyncio.get_running_loop().remove_reader(self._pipe_fd)
            # The reading connection first: the last one to close writes the WAL back, which takes time.
            if self._reads is not None:
                self._reads.close()
                self._reads = None
            checkpointer, self._checkpointer = self._checkpointer, None
            if checkpointer is not None:
                await checkpointer.stop(_CLOSE_TIMEOUT_S)
            if await writer.stop(_CLOSE_TIMEOUT_S):
                self._pipe.close()
            for wakeup in tuple(self._wakeups):
                wakeup.set()

    async def _open(self, kind: type[Unavailable]) -> None:
        writer = WriterThread(
            connect=lambda: open_writing(self.path, self._synchronous),
            committed=self._after_commit,
            complete=self._complete,
            tidy=self._shorten_wal,
        )
        started = False
        try:
            make_folder(self.path.parent)
            make_file(self.path)  # SQLite copies the rights of this file to its other files
            await writer.start(f"sqlite {self.path.name}", _OPEN_TIMEOUT_S)
            started = True
            self._close_off()
            self._pipe_fd = self._pipe.open()
            self._reads = open_reading(self.path)
            self._version = self._reads.execute("PRAGMA data_version").fetchone()[0]
        except BaseException as error:
            if started:
                await writer.stop(_CLOSE_TIMEOUT_S)
            self._pipe.close()
            if isinstance(error, sqlite3.Error):
                raise unavailable(kind, error, operation="open", where=str(self.path)) from error
            if isinstance(error, OSError):  # TimeoutError is one
                fault = environment_fault(error)
                remedy = fault.remedy if isinstance(fault, EnvironmentFault) else _OPEN_REMEDY
                raise kind(
                    f"open failed: {error.strerror or error or 'no answer from the disk'}",
                    where=str(error.filename or self.path),
                    remedy=remedy,
                ) from error
            raise
        self._writer = writer
        self._checkpointer = Checkpointer(lambda: open_checkpointing(self.path), f"checkpoint {self.path.name}")
        loop = asyncio.get_running_loop()
        loop.add_reader(self._pipe_fd, self._on_wake)
        self._timer = loop.call_later(_SAFETY_POLL_S, self._poll)

    def _close_off(self) -> None:
        """Remove the rights of other users. A folder with another name than the default may hold foreign files."""
        ours = [self.path, *(Path(f"{self.path}{end}") for end in ("-wal", "-shm", ".wake"))]
        if self.path.absolute().parent.name == FOLDER_NAME:
            ours.append(self.path.absolute().parent)
        closed = close_off(ours)
        if closed:
            _log.warning("other users could read this data; their rights were removed", path=str(self.path), was=closed)

    @property
    def opener(self) -> str:
        """Name of this opener of the file, unique in all processes."""
        return self._pipe.name

    async def agree_on_time(
        self, newest_ms: Callable[[sqlite3.Connection], int], *, kind: type[Unavailable] = LogUnavailable
    ) -> None:
        """Synchronize `clock` with all processes that have the file open, and set it to `newest_ms` at least."""
        alone = self._pipe.alone()
        await self.write(
            lambda connection: self.clock.synchronize(connection, newest_ms=newest_ms(connection), alone=alone),
            operation="agree on the time",
            kind=kind,
            wakes=(),
        )

    def is_dead(self, opener: str) -> bool:
        """Return whether the process of that opener was killed; False if unknown. Callable from any thread."""
        return self._pipe.is_dead(opener)

    # ------------------------------------------------------------------------------------------------ write, read

    def write(
        self,
        job: Callable[[sqlite3.Connection], T],
        *,
        timeout_ms: float = 10_000,
        operation: str = "write",
        kind: type[Unavailable] = LogUnavailable,
        wakes: Iterable[int] = (BOARD_CHANNEL,),
    ) -> "asyncio.Future[T]":
        """Queue `job` at once for the writer thread; the returned future has its result after COMMIT.

        Jobs of all callers run in the order of their calls, many in one transaction. An error of a job is that of its
        future and undoes only the writes of that job. A job must not begin or end transactions. It must be repeatable:
        it runs again when another job of its transaction failed. `wakes`: the channels whose subscribers are woken; it
        is read after the job, which may fill it. The future raises `kind` when there is no verdict after `timeout_ms`
        (the write may or may not happen then), and for whatever SQLite refuses. Raises `kind` for a closed file.
        """
        writer = self._writer
        if writer is None or writer.failure is not None:
            raise self._closed_error(kind, operation, writer)
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        writer.put(WriteJob(job, future, operation, timeout_ms, wakes, kind, str(self.path)))
        return future

    def read(
        self,
        job: Callable[[sqlite3.Connection], T],
        *,
        operation: str = "read",
        kind: type[Unavailable] = LogUnavailable,
    ) -> T:
        """Run `job` at once on the reading connection, on the caller's own thread: must be short.

        Readers never wait for writers. Every statement sees what was committed when it began; it must be fetched to
        its end, else it holds the WAL. Raises `kind` for whatever SQLite refuses.
        """
        if self._reads is None:
            raise self._closed_error(kind, operation, self._writer)
        try:
            return job(self._reads)
        except sqlite3.Error as error:
            raise unavailable(kind, error, operation=operation, where=str(self.path)) from error

    def _closed_error(self, kind: type[Unavailable], operation: str, writer: WriterThread | None) -> Unavailable:
        if writer is not None and writer.failure is not None:
            error = kind(f"{operation} failed: the writer thread ended: {writer.failure!r}", where=str(self.path))
            error.__cause__ = writer.failure
            return error
        return kind(f"{operation} failed: the file is not open", where=str(self.path), remedy="Call start() first")

    def _complete(self, results: JobResults, touched: frozenset[int]) -> None:
        """Complete the futures of a group of jobs, then wake the subscribers of this process. Runs on the loop."""
        for job, result, error in results:
            job.deadline.cancel()
            if job.future.done():
                continue
            if error is None:
                job.future.set_result(result)
            else:
                job.future.set_exception(error)
        if touched:
            self._offer(touched)

    def _after_commit(self, touched: frozenset[int]) -> None:
        """Wake other processes, which takes longer, before the callers get their results. Runs in the writer thread."""
        if touched:
            self._pipe.notify(touched)
        if self._checkpointer is not None:
            self._checkpointer.want(urgent=bool(touched))

    def _shorten_wal(self, connection: sqlite3.Connection) -> None:
        """Shorten the WAL if it is beyond its limit. Runs in the writer thread, after the callers got their results.

        Checkpoints beside the writing never wait. Under steady load none may reach the end of the WAL, which would grow
        without limit. Beyond the limit, this checkpoint waits for the readers.
        """
        now = time.monotonic()
        if now - self._wal_checked_at < _WAL_CHECK_S:
            return
        self._wal_checked_at = now
        try:
            if Path(f"{self.path}-wal").stat().st_size > WAL_BYTES_MAX:
                restart_wal(connection)
        except (sqlite3.Error, FileNotFoundError):
            # No caller waits for this. If the disk is full or lost, the next write reports it to its caller.
            return

    # --------------------------------------------------------------------------------------------------- wake-ups

    def subscribe(self, channels: Iterable[int] | None = None) -> Wakeup:
        """Return an event that is set after each commit on `channels` (None: on any), by any process.

        It is set within 2 ms as a rule, and within 100 ms always. `clear` it, read, then `wait`. `close` it when done.
        """
        wakeup = Wakeup(channels, self._forget)
        self._wakeups.append(wakeup)
        return wakeup

    def _forget(self, wakeup: Wakeup) -> None:
        if wakeup in self._wakeups:
            self._wakeups.remove(wakeup)

    def _offer(self, touched: frozenset[int] | None) -> None:
        for wakeup in self._wakeups:
            wakeup.offer(touched)

    def _on_wake(self) -> None:
        touched = self._pipe.drain()
        if touched is None or touched:
            self._offer(touched)

    def _poll(self) -> None:
        """Wake all subscribers if any process has committed since the last call. This is the safety poll."""
        self._timer = asyncio.get_running_loop().call_later(_SAFETY_POLL_S, self._poll)
        if not self._wakeups:
            return
        try:
            version = self.read(lambda connection: int(connection.execute("PRAGMA data_version").fetchone()[0]))
        except Unavailable:
            version = -1  # the subscribers read for themselves, and report the error
        if version != self._version or version == -1:
            self._version = version
            self._offer(None)


def expect_format(connection: sqlite3.Connection) -> int:
    """Return the version of the tables; 0 for a file without any. Raises ConfigInvalid for another version."""
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    if version not in (0, FORMAT):
        raise ConfigInvalid(
            "the file was written by another version of agent-mesh",
            expected=f"format {FORMAT}",
            got=f"format {version}",
            remedy="Use that version, or name another file",
        )
    return version


def _create(connection: sqlite3.Connection, schema: Sequence[str]) -> None:
    version = expect_format(connection)
    for statement in schema:
        connection.execute(statement)
    if version != FORMAT:
        connection.execute(f"PRAGMA user_version = {FORMAT}")
