"""Encodings of text files as editors write them: UTF-8 with or without a mark, UTF-16 and UTF-32 with one."""

from typing import Final

MARKS: Final = (
    (b"\xef\xbb\xbf", "utf-8-sig"),
    (b"\xff\xfe\0\0", "utf-32"),  # begins as a mark of UTF-16, so it comes first
    (b"\0\0\xfe\xff", "utf-32"),
    (b"\xff\xfe", "utf-16"),
    (b"\xfe\xff", "utf-16"),
)
"""Byte order marks, and the codec of the text behind them."""


def codec_for(data: bytes) -> str:
    """Return the codec for the byte order mark of a document; "" without a mark."""
    return next((name for mark, name in MARKS if data.startswith(mark)), "")


def decode_text(data: bytes) -> str:
    """Return the text of a file, with line ends as `\\n`. Raises UnicodeDecodeError."""
    return data.decode(codec_for(data) or "utf-8").replace("\r\n", "\n").replace("\r", "\n")


def text_flaw(text: str) -> str:
    """Return the flaw of a text from the operating system, as the end of a sentence; "" for none."""
    if "\0" in text:
        return "holds a NUL character"
    try:
        text.encode()
    except UnicodeEncodeError:
        return "is not UTF-8"
    return ""
