"""Single keys from a terminal: arrows and letters as they are pressed, without waiting for Enter."""

import asyncio
import os
import sys
import termios
import tty
from collections import deque
from types import TracebackType
from typing import Final, Self

END: Final = "end of input"
INTERRUPT: Final = "interrupt"
NAMES: Final = {
    b"\x1b[C": "right",
    b"\x1bOC": "right",
    b"\x1b[D": "left",
    b"\x1bOD": "left",
    b"\x1b[A": "up",
    b"\x1bOA": "up",
    b"\x1b[B": "down",
    b"\x1bOB": "down",
    b"\x1b[H": "home",
    b"\x1b[1~": "home",
    b"\x1bOH": "home",
    b"\x1b[F": "end",
    b"\x1b[4~": "end",
    b"\x1bOF": "end",
    b"\x1b[5~": "page up",
    b"\x1b[6~": "page down",
    b"\x03": INTERRUPT,
    b"\x04": END,
    b"\r": "enter",
    b"\n": "enter",
    b"\x7f": "backspace",
    b"\b": "backspace",
    b"\x1b": "escape",
}
"""Bytes that terminals send → the name of the key."""
_LONGEST: Final = max(map(len, NAMES))


def decode(data: bytes) -> list[str]:
    """Split what a terminal sent into keys: names of NAMES, or single characters. Unknown sequences are left out."""
    keys = []
    while data:
        for length in range(min(_LONGEST, len(data)), 0, -1):
            if data[:length] in NAMES and not (data[:length] == b"\x1b" and len(data) > 1 and data[1:2] in b"[O"):
                keys.append(NAMES[data[:length]])
                data = data[length:]
                break
        else:
            taken = _sequence_bytes(data) or _character_bytes(data)
            text = data[:taken].decode("utf-8", "replace")
            keys += [text] if text.isprintable() else []
            data = data[taken:]
    return keys


def _sequence_bytes(data: bytes) -> int:
    """Return the length of an unknown escape sequence; 0 if there is none."""
    if data[:1] != b"\x1b":
        return 0
    end = next((n for n, byte in enumerate(data[2:], 3) if 0x40 <= byte <= 0x7E), len(data))
    return end if data[1:2] in (b"[", b"O") else 1


def _character_bytes(data: bytes) -> int:
    """Return the length of the first character in UTF-8; 1 for a byte that begins none."""
    return next((n for n in range(1, 5) if len(data[:n].decode("utf-8", "ignore")) == 1), 1)


class Keys:
    """The keys of the terminal on stdin. A context: outside it the terminal waits for Enter again."""

    def __init__(self) -> None:
        self._fd = sys.stdin.fileno()
        self._before = termios.tcgetattr(self._fd)
        self._keys: deque[str] = deque()

    def __enter__(self) -> Self:
        tty.setcbreak(self._fd)
        mode = termios.tcgetattr(self._fd)
        mode[3] &= ~termios.ISIG  # Ctrl-C is a key: a terminal that controls no process would swallow it
        termios.tcsetattr(self._fd, termios.TCSADRAIN, mode)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        termios.tcsetattr(self._fd, termios.TCSADRAIN, self._before)

    async def read(self) -> str:
        """Return the next key; `END` when the terminal is gone."""
        while not self._keys:
            data = await self._read_bytes()
            if not data:
                return END
            self._keys.extend(decode(data))
        return self._keys.popleft()

    async def _read_bytes(self) -> bytes:
        loop = asyncio.get_running_loop()
        ready: asyncio.Future[None] = loop.create_future()
        loop.add_reader(self._fd, _answer, ready)
        try:
            await ready
        finally:
            loop.remove_reader(self._fd)
        try:
            return os.read(self._fd, 1_024)
        except OSError:  # the terminal was closed
            return b""


def _answer(ready: "asyncio.Future[None]") -> None:
    if not ready.done():
        ready.set_result(None)
