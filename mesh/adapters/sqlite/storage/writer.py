"""The one writing thread of a process, with group commit.

All writes that wait when a transaction begins share that transaction and are acknowledged together. So they share the
cost of a commit, and with `FULL` of a disk flush.
"""

import asyncio
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from mesh.adapters.deadline import Deadline
from mesh.adapters.sqlite.storage.failure import is_busy, late, unavailable
from mesh.core.errors import Unavailable

_GROUP_MAX = 256
_GROUP_S = 0.05
"""Duration of a transaction after which it begins no further job, since other processes wait for the lock."""
_LOCK_PAUSE_S = 0.0002
_LOCK_PAUSE_S_MAX = 0.005

JobFunction = Callable[[sqlite3.Connection], Any]
JobResults = list[tuple["WriteJob", Any, BaseException | None]]


@dataclass(slots=True, eq=False)
class WriteJob:
    """A write that waits for its commit."""

    function: JobFunction
    future: asyncio.Future[Any]
    operation: str
    timeout_ms: float
    wakes: Iterable[int]
    kind: type[Unavailable]
    where: str
    deadline: Deadline = field(init=False)

    def __post_init__(self) -> None:
        self.deadline = Deadline(self.timeout_ms, self.expire)

    def expire(self) -> None:
        """Fail the job after its deadline, so that the writer leaves it out. Called on the loop."""
        if not self.future.done():
            self.future.set_exception(
                late(self.kind, operation=self.operation, where=self.where, timeout_ms=self.timeout_ms)
            )


class WriterThread:
    """The thread with the writing connection. Callbacks run in it, except `complete`: on the loop, after a group."""

    def __init__(
        self,
        *,
        connect: Callable[[], sqlite3.Connection],
        committed: Callable[[frozenset[int]], None],
        complete: Callable[[JobResults, frozenset[int]], None],
        tidy: Callable[[sqlite3.Connection], None],
    ) -> None:
        self._connect = connect
        self._committed = committed
        self._complete = complete
        self._tidy = tidy
        self._queue: queue.SimpleQueue[WriteJob | None] = queue.SimpleQueue()
        self._left: list[WriteJob] = []
        self._loop = asyncio.get_running_loop()
        self._ended: asyncio.Future[None] = self._loop.create_future()
        self._opened: asyncio.Future[None] = self._loop.create_future()
        self.failure: BaseException | None = None

    async def start(self, name: str, timeout_s: float) -> None:
        """Start the thread. Raises the error of `connect`, or TimeoutError when that does not return."""
        # A daemon: a thread stuck in a dead disk must not keep the process from ending.
        threading.Thread(target=self._run, name=name, daemon=True).start()
        try:
            async with asyncio.timeout(timeout_s):
                await self._opened
        except BaseException:
            self._queue.put(None)  # if it returns later, it ends at once
            raise

    def put(self, job: WriteJob) -> None:
        self._queue.put(job)

    async def stop(self, timeout_s: float) -> bool:
        """Write what waits, then end. Returns False if the thread is stuck and was abandoned."""
        self._queue.put(None)
        await asyncio.wait([self._ended], timeout=timeout_s)
        return self._ended.done()

    def _run(self) -> None:
        try:
            connection = self._connect()
        except BaseException as error:  # noqa: BLE001  # raised by `start`
            self._call_on_loop(_resolve, self._opened, error)
            return
        self._call_on_loop(_resolve, self._opened, None)
        try:
            while group := self._next_group():
                self._commit(connection, group)
        except BaseException as error:  # noqa: BLE001  # kept: every later write raises it
            self.failure = error
        finally:
            connection.close()
            self._call_on_loop(_resolve, self._ended, None)

    def _next_group(self) -> list[WriteJob]:
        """Take all waiting jobs, after a wait for the first. Returns an empty list to stop."""
        group, self._left = self._left, []
        if not group:
            first = self._queue.get()
            if first is None:
                return []
            group.append(first)
        while len(group) < _GROUP_MAX:
            try:
                job = self._queue.get_nowait()
            except queue.Empty:
                break
            if job is None:
                self._queue.put(None)
                break
            group.append(job)
        return group

    def _commit(self, connection: sqlite3.Connection, group: list[WriteJob]) -> None:
        results: JobResults = []
        touched: set[int] = set()
        try:
            group = self._begin(connection, group)
            if not group:
                return
            results = _run_freely(connection, group)
            if not results:
                _rollback(connection)
                group = self._begin(connection, group)
                if not group:
                    return
                results = _run_apart(connection, group)
            self._left = group[len(results) :]
            for job, _, error in results:
                if error is None:
                    touched.update(job.wakes)
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            _rollback(connection)
            touched.clear()
            results = [(j, None, unavailable(j.kind, error, operation=j.operation, where=j.where)) for j in group]
        channels = frozenset(touched)
        if any(error is None for _, _, error in results):
            self._committed(channels)
        self._call_on_loop(self._complete, results, channels)
        self._tidy(connection)

    def _begin(self, connection: sqlite3.Connection, group: list[WriteJob]) -> list[WriteJob]:
        """Take the write lock; return the jobs whose callers still wait."""
        pause_s = _LOCK_PAUSE_S
        while group := [job for job in group if not (job.future.done() or self._loop.is_closed())]:
            try:
                connection.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError as error:
                if not is_busy(error):
                    raise
                # SQLite's own wait soon sleeps for 20 to 100 ms, while most transactions last less than one.
                time.sleep(pause_s)
                pause_s = min(pause_s * 1.5, _LOCK_PAUSE_S_MAX)
            else:
                break
        return group

    def _call_on_loop(self, call: Callable[..., None], *arguments: Any) -> None:
        try:
            self._loop.call_soon_threadsafe(call, *arguments)
        except RuntimeError:
            # The loop is closed, and with it every task that waited for this call.
            if not self._loop.is_closed():
                raise


def _run_freely(connection: sqlite3.Connection, group: list[WriteJob]) -> JobResults:
    """Run jobs without savepoints. Returns an empty list in the rare case that one failed after it had written.

    Stops after a while. The remaining jobs go into the next transaction.
    """
    results: JobResults = []
    until = time.monotonic() + _GROUP_S
    for job in group:
        if time.monotonic() > until:
            break
        before = connection.total_changes
        try:
            results.append((job, job.function(connection), None))
        except sqlite3.Error:
            return []
        except BaseException as error:  # noqa: BLE001  # raised at the job's caller
            if connection.total_changes != before:
                return []
            results.append((job, None, error))
    return results


def _run_apart(connection: sqlite3.Connection, group: list[WriteJob]) -> JobResults:
    """Run each job in its own savepoint, so that a failed one leaves no trace in the commit of the others."""
    results: JobResults = []
    for job in group:
        connection.execute("SAVEPOINT job")
        try:
            result = job.function(connection)
        except BaseException as error:  # raised at the job's caller
            if not connection.in_transaction:
                raise  # SQLite has rolled back the whole transaction: disk full, I/O error
            connection.execute("ROLLBACK TO job")
            if isinstance(error, sqlite3.Error):
                error = unavailable(job.kind, error, operation=job.operation, where=job.where)
            results.append((job, None, error))
        else:
            results.append((job, result, None))
        connection.execute("RELEASE job")
    return results


def _rollback(connection: sqlite3.Connection) -> None:
    """Roll back, unless SQLite has done so after an error."""
    if connection.in_transaction:
        connection.execute("ROLLBACK")


def _resolve(future: "asyncio.Future[None]", error: BaseException | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(None)
    else:
        future.set_exception(error)
