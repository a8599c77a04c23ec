"""Checkpoints of the WAL: moves commits from the write-ahead log into the file, beside the writing.

SQLite itself does this within some commit once the log has grown, and that commit waits for the disk (20 to 100 ms). A
separate thread delays no commit.
"""

import asyncio
import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing

_PAUSE_S = 1.0
_RETRY_S = 10.0
_MINOR_COMMITS = 64


class Checkpointer:
    """A thread with its own connection, which works at most once a second, and only after commits."""

    def __init__(self, connect: Callable[[], sqlite3.Connection], name: str) -> None:
        """Start the thread. Use it from one event loop, except for `want`."""
        self._connect = connect
        self._loop = asyncio.get_running_loop()
        self._ended: asyncio.Future[None] = self._loop.create_future()
        self._wanted = threading.Event()
        self._stopping = threading.Event()
        self._minor = 0
        # A daemon: a thread stuck in a dead disk must not keep the process from ending.
        threading.Thread(target=self._run, name=name, daemon=True).start()

    def want(self, *, urgent: bool) -> None:
        """Ask for a checkpoint after a commit. Commits that are not urgent (heartbeats) are moved together."""
        self._minor += 1
        if (urgent or self._minor >= _MINOR_COMMITS) and not self._wanted.is_set():
            self._minor = 0
            self._wanted.set()

    async def stop(self, timeout_s: float) -> bool:
        """End soon. The last connection that closes moves the rest. Returns False if the thread is stuck."""
        self._stopping.set()
        self._wanted.set()
        await asyncio.wait([self._ended], timeout=timeout_s)
        return self._ended.done()

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._work()
            except sqlite3.Error:
                # No caller waits for this. The next write reports a full or failing disk to its caller, and the writer
                # itself shortens a log beyond its limit.
                self._stopping.wait(_RETRY_S)
        try:
            self._loop.call_soon_threadsafe(self._end)
        except RuntimeError:
            # The loop is closed, so no caller waits.
            if not self._loop.is_closed():
                raise

    def _end(self) -> None:
        if not self._ended.done():
            self._ended.set_result(None)

    def _work(self) -> None:
        with closing(self._connect()) as connection:
            while not self._stopping.is_set():
                self._wanted.wait()
                self._wanted.clear()
                if not self._stopping.is_set():
                    connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
                    self._stopping.wait(_PAUSE_S)
