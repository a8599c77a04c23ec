"""Text files as people's editors write them: UTF-8 with and without a mark, UTF-16 and UTF-32 with one."""

from typing import Final

MARKS: Final = (
    (b"\xef\xbb\xbf", "utf-8-sig"),
    (b"\xff\xfe\0\0", "utf-32"),  # begins as a mark of UTF-16, so it comes first
    (b"\0\0\xfe\xff", "utf-32"),
    (b"\xff\xfe", "utf-16"),
    (b"\xfe\xff", "utf-16"),
)
"""Byte order marks, and the codec that reads what follows."""


def codec_for(data: bytes) -> str:
    """The codec that the byte order mark of a document names; empty without a mark."""
    return next((name for mark, name in MARKS if data.startswith(mark)), "")


def decode_text(data: bytes) -> str:
    """The text of a file, line ends as `\\n`. Raises UnicodeDecodeError."""
    return data.decode(codec_for(data) or "utf-8").replace("\r\n", "\n").replace("\r", "\n")


def text_flaw(text: str) -> str:
    """Why text that came from the operating system cannot be used, as the end of a sentence; empty if it can."""
    if "\0" in text:
        return "holds a NUL character"
    try:
        text.encode()
    except UnicodeEncodeError:
        return "is not UTF-8"
    return ""
