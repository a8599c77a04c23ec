"""Reads and writes on standard streams that wait, even where the pipe or terminal is non-blocking.

All processes that inherited an open file share its blocking mode, and any of them may change it. This module leaves the
mode alone: a read or a write that would block waits in `select`.
"""

import codecs
import io
import os
import select
import sys
from typing import Any, Final

from mesh.core.errors import InvalidInput
from mesh.core.text_encoding import MARKS, codec_for

CHUNK_BYTES: Final = 262_144


def read_input(bytes_max: int = CHUNK_BYTES) -> bytes:
    """Read at most this many bytes of standard input; empty at its end. Raises OSError."""
    number = sys.stdin.fileno()
    while True:
        try:
            return os.read(number, bytes_max)
        except BlockingIOError:
            select.select([number], [], [])


def read_all_input() -> bytes:
    """Read standard input to its end, as UTF-8. Raises InvalidInput."""
    try:
        return document(b"".join(iter(read_input, b"")), "-")
    except OSError as error:
        raise unreadable(error) from error


def document(data: bytes, where: str) -> bytes:
    """Convert a document to UTF-8 without a byte order mark. Without a mark it is unchanged. Raises InvalidInput."""
    return Utf8(where).feed(data, last=True)


class Utf8:
    """Converts a document in parts to UTF-8 without a byte order mark. Bytes without a mark are unchanged."""

    def __init__(self, where: str = "-") -> None:
        """`where`: the file, for errors."""
        self._where, self._codec, self._begun = where, "", b""
        self._known = False
        self._decoder: codecs.IncrementalDecoder | None = None

    def feed(self, part: bytes, *, last: bool = False) -> bytes:
        """Convert the next part; empty while it may be the beginning of a mark. Raises InvalidInput."""
        if not self._known:
            part = self._begun + part
            if not last and len(part) < 4 and any(mark.startswith(part) for mark, _ in MARKS):
                self._begun = part
                return b""
            self._known, self._codec = True, codec_for(part)
            if self._codec == "utf-8-sig":
                return part[3:]
            if self._codec:
                self._decoder = codecs.getincrementaldecoder(self._codec)("surrogatepass")
        if self._decoder is None:
            return part
        try:
            return self._decoder.decode(part, last).encode("utf-8", "surrogatepass")
        except UnicodeDecodeError as error:
            raise InvalidInput(
                f"the text is not {self._codec}, as its byte order mark says: {error.reason}",
                code="unparseable",
                where=self._where,
                expected="UTF-8, or UTF-16 with a byte order mark",
            ) from error


def unreadable(error: OSError) -> InvalidInput:
    """The error for a failed read of standard input."""
    text = f"standard input cannot be read: {error.strerror}"
    return InvalidInput(text, code="usage", where="-", expected="a pipe or a file that is open for reading")


def wait_for_output() -> None:
    """Make sys.stdout and sys.stderr wait where the reader behind them is slower."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        try:
            number = stream.fileno()
            blocks = os.get_blocking(number)
        except (OSError, ValueError):
            continue  # it is not a file
        if not blocks:
            raw: Any = io.BufferedWriter(_WaitingFile(number))
            line = name == "stderr" or stream.isatty()
            setattr(sys, name, io.TextIOWrapper(raw, stream.encoding, stream.errors, line_buffering=line))


class _WaitingFile(io.RawIOBase):
    """Writes to a non-blocking file that it does not own, and waits in `select`."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self._number = number

    def fileno(self) -> int:
        return self._number

    def isatty(self) -> bool:
        return os.isatty(self._number)

    def writable(self) -> bool:
        return True

    def write(self, data: "memoryview") -> int:  # type: ignore[override]  # a BufferedWriter passes a memoryview
        while True:
            try:
                return os.write(self._number, data)
            except BlockingIOError:
                select.select([], [self._number], [])
