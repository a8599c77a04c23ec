"""One SQLite file, shared by the log, the board and several processes on one machine.

Durability: with `NORMAL` what was acknowledged survives `kill -9` of any process at any time; after a loss of power
the last commits may be missing (the file stays sound). With `FULL` every commit is flushed to disk first.
Never open the file itself by other means in a process that uses it: closing such a descriptor drops SQLite's locks.
"""

import asyncio
import sqlite3
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Literal, TypeVar

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
"""Touched by every write that does not say otherwise; the log uses positive (partitions) and negative (groups) ones."""

FORMAT = 2
"""Version of the tables, in the file's `user_version`. A file of another version is refused."""

FOLDER_NAME = ".mesh"
"""The folder that the default address of the file names: whatever lies in it is the mesh's."""

_log = diagnostics("sqlite")
_OPEN_TIMEOUT_S = 15.0
_OPEN_REMEDY = "Check that the directory exists and that this user may write in it"
_CLOSE_TIMEOUT_S = 5.0
_SAFETY_POLL_S = 0.1
_WAL_CHECK_S = 0.25


class SqliteFile:
    """Connections, the writer thread and wake-ups of one file. Used from one event loop.

    Every user (log, board) calls `start` and `close`; the last `close` lets go of the file.
    """

    def __init__(self, path: str | Path, *, synchronous: Literal["NORMAL", "FULL"] = "NORMAL") -> None:
        self.path = Path(path)
        self.clock = FileClock()
        """The time of what is written here, once `agree_on_time` has been called."""
        self._synchronous = synchronous
        self._users = 0
        self._opening = asyncio.Lock()
        self._writer: WriterThread | None = None
        self._reads: sqlite3.Connection | None = None
        self._checkpointer: Checkpointer | None = None
        self._bell = WakePipe(Path(f"{self.path}.wake"))
        self._bell_fd = -1
        self._wakeups: list[Wakeup] = []
        self._version = -1
        self._timer: asyncio.TimerHandle | None = None
        self._wal_checked_at = 0.0

    # ------------------------------------------------------------------------------------------------- open, close

    async def start(self, schema: Sequence[str] = (), *, kind: type[Unavailable] = LogUnavailable) -> None:
        """Open the file, making it and its directory if need be, and run `schema` (`CREATE … IF NOT EXISTS`).

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
        """Let go of the file when the last user closes: what waits is written first. Returns within 10 s, always."""
        async with self._opening:
            self._users -= 1
            if self._users > 0 or self._writer is None:
                self._users = max(self._users, 0)
                return
            writer, self._writer = self._writer, None
            if self._timer is not None:
                self._timer.cancel()
            asyncio.get_running_loop().remove_reader(self._bell_fd)
            # Ours first: the last connection to close writes the WAL back, and the thread's may take its time.
            if self._reads is not None:
                self._reads.close()
                self._reads = None
            checkpointer, self._checkpointer = self._checkpointer, None
            if checkpointer is not None:
                await checkpointer.stop(_CLOSE_TIMEOUT_S)
            if await writer.stop(_CLOSE_TIMEOUT_S):
                self._bell.close()
            for wakeup in tuple(self._wakeups):
                wakeup.set()

    async def _open(self, kind: type[Unavailable]) -> None:
        writer = WriterThread(
            connect=lambda: open_writing(self.path, self._synchronous),
            committed=self._after_commit,
            settle=self._settle,
            tidy=self._shorten_wal,
        )
        started = False
        try:
            make_folder(self.path.parent)
            make_file(self.path)  # SQLite gives its other files the rights of this one
            await writer.start(f"sqlite {self.path.name}", _OPEN_TIMEOUT_S)
            started = True
            self._close_off()
            self._bell_fd = self._bell.open()
            self._reads = open_reading(self.path)
            self._version = self._reads.execute("PRAGMA data_version").fetchone()[0]
        except BaseException as error:
            if started:
                await writer.stop(_CLOSE_TIMEOUT_S)
            self._bell.close()
            if isinstance(error, sqlite3.Error):
                raise unavailable(kind, error, operation="open", where=str(self.path)) from error
            if isinstance(error, OSError):  # TimeoutError is one
                lack = environment_fault(error)
                remedy = lack.remedy if isinstance(lack, EnvironmentFault) else _OPEN_REMEDY
                raise kind(
                    f"open failed: {error.strerror or error or 'no answer from the disk'}",
                    where=str(error.filename or self.path),
                    remedy=remedy,
                ) from error
            raise
        self._writer = writer
        self._checkpointer = Checkpointer(lambda: open_checkpointing(self.path), f"checkpoint {self.path.name}")
        loop = asyncio.get_running_loop()
        loop.add_reader(self._bell_fd, self._on_bell)
        self._timer = loop.call_later(_SAFETY_POLL_S, self._look)

    def _close_off(self) -> None:
        """Other users may read nothing here. A folder of any other name than ours may hold what is none of ours."""
        ours = [self.path, *(Path(f"{self.path}{end}") for end in ("-wal", "-shm", ".wake"))]
        if self.path.absolute().parent.name == FOLDER_NAME:
            ours.append(self.path.absolute().parent)
        closed = close_off(ours)
        if closed:
            _log.warning("other users could read this data; they cannot any more", path=str(self.path), was=closed)

    @property
    def opener(self) -> str:
        """Name of this opener of the file, other than any other's, in this or another process."""
        return self._bell.name

    async def agree_on_time(
        self, newest_ms: Callable[[sqlite3.Connection], int], *, kind: type[Unavailable] = LogUnavailable
    ) -> None:
        """Let `clock` say what it says in all processes that have the file open, and nothing before `newest_ms`."""
        alone = self._bell.alone()
        await self.write(
            lambda connection: self.clock.settle(connection, newest_ms=newest_ms(connection), alone=alone),
            operation="agree on the time",
            kind=kind,
            wakes=(),
        )

    def is_dead(self, opener: str) -> bool:
        """Whether the process of that opener was killed. False also when that cannot be told. Any thread may ask."""
        return self._bell.is_dead(opener)

    # ------------------------------------------------------------------------------------------------ write, read

    async def write(
        self,
        job: Callable[[sqlite3.Connection], T],
        *,
        timeout_ms: float = 10_000,
        operation: str = "write",
        kind: type[Unavailable] = LogUnavailable,
        wakes: Iterable[int] = (BOARD_CHANNEL,),
    ) -> T:
        """Run `job` in the writer thread within a transaction; returns its result after COMMIT.

        Jobs of all callers run in the order of their calls, many to a transaction. What a job raises comes out here
        and undoes only what that job wrote. A job must not begin or end transactions, and must be repeatable: it
        runs again when another one of its transaction failed. `wakes`: the channels whose subscribers are woken,
        read after the job ran, so that the job may fill it. Raises `kind` when there is no verdict after
        `timeout_ms` (the write may or may not happen then), and for whatever SQLite refuses.
        """
        return await self.submit(job, timeout_ms=timeout_ms, operation=operation, kind=kind, wakes=wakes)

    def submit(
        self,
        job: Callable[[sqlite3.Connection], T],
        *,
        timeout_ms: float = 10_000,
        operation: str = "write",
        kind: type[Unavailable] = LogUnavailable,
        wakes: Iterable[int] = (BOARD_CHANNEL,),
    ) -> "asyncio.Future[T]":
        """Like `write`, but takes its place in the queue at once; await the answer for the result."""
        writer = self._writer
        if writer is None or writer.failure is not None:
            raise self._closed(kind, operation, writer)
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
            raise self._closed(kind, operation, self._writer)
        try:
            return job(self._reads)
        except sqlite3.Error as error:
            raise unavailable(kind, error, operation=operation, where=str(self.path)) from error

    def _closed(self, kind: type[Unavailable], operation: str, writer: WriterThread | None) -> Unavailable:
        if writer is not None and writer.failure is not None:
            error = kind(f"{operation} failed: the writer thread ended: {writer.failure!r}", where=str(self.path))
            error.__cause__ = writer.failure
            return error
        return kind(f"{operation} failed: the file is not open", where=str(self.path), remedy="Call start() first")

    def _settle(self, settled: JobResults, touched: frozenset[int]) -> None:
        """On the loop, after a group: answer its callers, then wake who listens here."""
        for job, result, error in settled:
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
        """In the writer thread, before its callers are answered: others have the longer way."""
        if touched:
            self._bell.ring(touched)
        if self._checkpointer is not None:
            self._checkpointer.want(urgent=bool(touched))

    def _shorten_wal(self, connection: sqlite3.Connection) -> None:
        """In the writer thread, after its callers were answered.

        Checkpoints beside the writing never wait, so that under steady load none may ever reach the end of the WAL,
        which then grows without end. Past its limit one waits for the others.
        """
        now = time.monotonic()
        if now - self._wal_checked_at < _WAL_CHECK_S:
            return
        self._wal_checked_at = now
        try:
            if Path(f"{self.path}-wal").stat().st_size > WAL_BYTES_MAX:
                restart_wal(connection)
        except (sqlite3.Error, FileNotFoundError):
            # Nobody asked for this. If the disk is full or gone, the next write meets it and tells its caller.
            return

    # --------------------------------------------------------------------------------------------------- wake-ups

    def subscribe(self, channels: Iterable[int] | None = None) -> Wakeup:
        """An event that is set after each commit on `channels` (None: on any), by this or any other process.

        Within 2 ms as a rule, within 100 ms always. `clear` it, look, then `wait`. `close` it when done.
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

    def _on_bell(self) -> None:
        touched = self._bell.drain()
        if touched is None or touched:
            self._offer(touched)

    def _look(self) -> None:
        """The safety poll: has anybody committed since we last looked?"""
        self._timer = asyncio.get_running_loop().call_later(_SAFETY_POLL_S, self._look)
        if not self._wakeups:
            return
        try:
            version = self.read(lambda connection: int(connection.execute("PRAGMA data_version").fetchone()[0]))
        except Unavailable:
            version = -1  # whoever is woken now reads for himself, and has somebody to tell
        if version != self._version or version == -1:
            self._version = version
            self._offer(None)


def _create(connection: sqlite3.Connection, schema: Sequence[str]) -> None:
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    if version not in (0, FORMAT):
        raise ConfigInvalid(
            "the file was written by another version of agent-mesh",
            expected=f"format {FORMAT}",
            got=f"format {version}",
            remedy="Use that version, or name another file",
        )
    for statement in schema:
        connection.execute(statement)
    if version != FORMAT:
        connection.execute(f"PRAGMA user_version = {FORMAT}")
