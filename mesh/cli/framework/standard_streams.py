"""Standard input and output that block, though the pipe or the terminal behind them may not.

Whether reads and writes block is a property of the open file, which all processes that inherited it share: any of them
may have changed it. So it is not changed back here; a read or a write that would have to wait waits in `select`.
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
    """What comes next on standard input, at most so many bytes; empty at its end. Raises OSError."""
    number = sys.stdin.fileno()
    while True:
        try:
            return os.read(number, bytes_max)
        except BlockingIOError:
            select.select([number], [], [])


def read_all_input() -> bytes:
    """Standard input up to its end, in UTF-8. Raises InvalidInput."""
    try:
        return document(b"".join(iter(read_input, b"")), "-")
    except OSError as error:
        raise unreadable(error) from error


def document(data: bytes, where: str) -> bytes:
    """A document that was read, in UTF-8 without a mark; as it is, if it has none. Raises InvalidInput."""
    return Utf8(where).feed(data, last=True)


class Utf8:
    """A document in parts → the same in UTF-8, without a mark. Bytes without a mark are left as they are."""

    def __init__(self, where: str = "-") -> None:
        """`where`: the file, for errors."""
        self._where, self._codec, self._begun = where, "", b""
        self._known = False
        self._decoder: codecs.IncrementalDecoder | None = None

    def feed(self, part: bytes, *, last: bool = False) -> bytes:
        """The next part; empty while it may be the beginning of a mark. Raises InvalidInput."""
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
    """Why standard input cannot be read."""
    text = f"standard input cannot be read: {error.strerror}"
    return InvalidInput(text, code="usage", where="-", expected="a pipe or a file that is open for reading")


def wait_for_output() -> None:
    """Make sys.stdout and sys.stderr wait where what is behind them takes nothing at the moment."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        try:
            number = stream.fileno()
            blocks = os.get_blocking(number)
        except (OSError, ValueError):
            continue  # no file is behind it
        if not blocks:
            raw: Any = io.BufferedWriter(_Patient(number))
            line = name == "stderr" or stream.isatty()
            setattr(sys, name, io.TextIOWrapper(raw, stream.encoding, stream.errors, line_buffering=line))


class _Patient(io.RawIOBase):
    """Writes to a file of which it is not the owner."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self._number = number

    def fileno(self) -> int:
        return self._number

    def isatty(self) -> bool:
        return os.isatty(self._number)

    def writable(self) -> bool:
        return True

    def write(self, data: "memoryview") -> int:  # type: ignore[override]  # what a BufferedWriter hands over
        while True:
            try:
                return os.write(self._number, data)
            except BlockingIOError:
                select.select([], [self._number], [])
