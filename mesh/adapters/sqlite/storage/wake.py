"""Wake-ups between processes: one named pipe for each process, in a directory beside the file.

A process that commits writes the numbers of the touched channels into all other pipes. A pipe needs no daemon, has no
limit on the length of its path, and shows at once that its reader is dead: opening it then fails with ENXIO. A lost
byte costs at most one round of the safety poll (`SqliteFile`), never a record.
"""

import asyncio
import errno
import itertools
import os
import secrets
import struct
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from mesh.adapters.private_files import FILE_MODE, make_folder

_EVERYTHING = -(2**31)
_CHANNELS_MAX = 512  # 2 KiB: below PIPE_BUF everywhere, so that a message is written whole or not at all
_READ_BYTES = 65_536
_LEFTOVER_S = 600.0
_RACY_NS = 100_000_000
_serial = itertools.count()


class Wakeup:
    """Like `asyncio.Event`: set after every commit on one of its channels, by this or any other process.

    `fired` holds the channels touched since the last `clear`. `everything` is True when they are unknown (a wake-up was
    lost, or there were too many at once): then read all. It may be set without need, and is never late by more than
    100 ms.
    """

    __slots__ = ("_forget", "_set", "_waiters", "channels", "everything", "fired")

    def __init__(self, channels: Iterable[int] | None, forget: Callable[["Wakeup"], None]) -> None:
        self.channels: set[int] | None = None if channels is None else set(channels)
        self.fired: set[int] = set()
        self.everything = False
        self._set = False
        self._waiters: list[asyncio.Future[None]] = []
        self._forget = forget

    def is_set(self) -> bool:
        return self._set

    def set(self, fired: Iterable[int] | None = None) -> None:
        """Wake the waiters. Without `fired`, all channels count as touched."""
        if fired is None:
            self.everything = True
        else:
            self.fired.update(fired)
        self._set = True
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)
        self._waiters.clear()

    def offer(self, touched: frozenset[int] | None) -> None:
        """Set the event if one of its channels was touched (None: any may have been)."""
        if touched is None:
            self.set()
        elif self.channels is None:
            self.set(touched)
        elif not self.channels.isdisjoint(touched):
            self.set(self.channels & touched)

    def clear(self) -> None:
        self._set = False
        self.everything = False
        self.fired.clear()

    async def wait(self, timeout_ms: float | None = None) -> bool:
        """Wait until the event is set, and leave it set. Returns False after `timeout_ms`."""
        if self._set:
            return True
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[None] = loop.create_future()
        self._waiters.append(waiter)
        timer = None if timeout_ms is None else loop.call_later(max(0.0, timeout_ms) / 1000, _wake, waiter)
        try:
            await waiter
        finally:
            if timer is not None:
                timer.cancel()
            if waiter in self._waiters:
                self._waiters.remove(waiter)
        return self._set

    def close(self) -> None:
        """End the subscription."""
        self._forget(self)


def _wake(waiter: "asyncio.Future[None]") -> None:
    if not waiter.done():
        waiter.set_result(None)


class WakePipe:
    """The pipe of this opener of the file, and connections to those of all others."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.name = f"{os.getpid()}-{next(_serial)}-{secrets.token_hex(4)}"
        self._read_fd = -1
        self._keep_fd = -1
        self._peers: dict[str, int] = {}
        self._dead: set[str] = set()
        self._listed_mtime_ns = -1
        self._listed_at_ns = 0

    def open(self) -> int:
        """Publish the pipe and return the descriptor to watch. Raises OSError."""
        make_folder(self._directory)
        self._remove_leftovers()
        # Under a hidden name first: a visible pipe without a reader means a dead owner.
        hidden = self._directory / f".{self.name}"
        os.mkfifo(hidden, FILE_MODE)
        hidden.chmod(FILE_MODE)
        self._read_fd = os.open(hidden, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        # Our own writing end keeps the pipe open when a peer closes its end; the loop would spin on a closed one.
        self._keep_fd = os.open(hidden, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        hidden.rename(self._directory / self.name)
        return self._read_fd

    def notify(self, channels: Iterable[int]) -> None:
        """Send the channels to every other opener. Called by the writer thread; never blocks."""
        numbers = tuple(channels)
        if len(numbers) > _CHANNELS_MAX:
            numbers = (_EVERYTHING,)
        message = struct.pack(f"<{len(numbers)}i", *numbers)
        self._find_peers()
        for name, fd in list(self._peers.items()):
            try:
                os.write(fd, message)
            except BlockingIOError:
                continue  # full: its owner is woken anyway, and a full pipe means "everything"
            except OSError:
                os.close(self._peers.pop(name))
                self._dead.add(name)

    def drain(self) -> frozenset[int] | None:
        """Read the channels that others touched since the last call; None if there were too many."""
        try:
            data = os.read(self._read_fd, _READ_BYTES)
        except BlockingIOError:
            return frozenset()
        if len(data) >= _READ_BYTES or len(data) % 4:
            return None
        touched = frozenset(struct.unpack(f"<{len(data) // 4}i", data))
        return None if _EVERYTHING in touched else touched

    def close(self) -> None:
        """Remove the pipe and close the others."""
        if self._read_fd >= 0:
            self._remove(self.name)
            os.close(self._read_fd)
            os.close(self._keep_fd)
            self._read_fd = self._keep_fd = -1
        for fd in self._peers.values():
            os.close(fd)
        self._peers.clear()

    def _find_peers(self) -> None:
        """Read the directory again if it may have changed since the last read."""
        try:
            mtime_ns = os.stat(self._directory).st_mtime_ns
        except FileNotFoundError:
            return  # the directory was removed; the commit is valid, and the safety poll finds it
        # A change within one tick of the file system's clock leaves the time stamp as it was.
        if mtime_ns == self._listed_mtime_ns and self._listed_at_ns - mtime_ns > _RACY_NS:
            return
        self._listed_mtime_ns = mtime_ns
        self._listed_at_ns = time.time_ns()
        try:
            names = {n for n in os.listdir(self._directory) if not n.startswith(".") and n != self.name}
        except OSError:  # too many open files: the commit is valid, and the next call reads again
            self._listed_mtime_ns = -1
            return
        for name in self._peers.keys() - names:
            os.close(self._peers.pop(name))
        self._dead &= names
        for name in names - self._peers.keys() - self._dead:
            try:
                self._peers[name] = self._open_to_write(name)
            except OSError as error:
                if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):  # that says nothing about the peer
                    self._listed_mtime_ns = -1
                else:
                    self._dead.add(name)

    def alone(self) -> bool:
        """Return whether no other opener has the file open."""
        others = (name for name in os.listdir(self._directory) if name.lstrip(".") != self.name)
        return all(self.is_dead(name) for name in others)

    def is_dead(self, name: str) -> bool:
        """Return whether the opener with this `name` was killed: its pipe has no reader. False if unknown."""
        try:
            os.close(self._open_to_write(name))
        except OSError as error:
            return error.errno == errno.ENXIO
        return False

    def _open_to_write(self, name: str) -> int:
        return os.open(self._directory / name, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)

    def _remove_leftovers(self) -> None:
        """Remove the pipes of processes that were killed some time ago. Until then they show that these are dead."""
        for name in os.listdir(self._directory):
            path = self._directory / name
            try:
                if self.is_dead(name) and time.time() - path.stat().st_mtime > _LEFTOVER_S:
                    path.unlink()
            except FileNotFoundError:
                continue

    def _remove(self, name: str) -> None:
        (self._directory / name).unlink(missing_ok=True)
