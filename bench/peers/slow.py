"""Work made slow for kill tests, and its beginning written down, so that the one who kills knows how far it is."""

import asyncio
import os
import time
from typing import NamedTuple


class Slowness(NamedTuple):
    """The duration of a task, and the descriptor of the file that grows by a byte at each begin. `work_ms` 0:
    neither."""

    work_ms: float
    touched_fd: int

    @classmethod
    def of(cls, work_ms: str, path: str) -> "Slowness":
        """From what a command line or an environment says."""
        return cls(float(work_ms), os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644) if path else -1)

    def begin(self) -> None:
        """A task begins."""
        if self.touched_fd >= 0:
            os.write(self.touched_fd, b".")

    async def wait(self) -> None:
        """Begin, and take the time."""
        if self.work_ms:
            self.begin()
            await asyncio.sleep(self.work_ms / 1000)

    def block(self) -> None:
        """The same for loops that block."""
        if self.work_ms:
            self.begin()
            time.sleep(self.work_ms / 1000)
