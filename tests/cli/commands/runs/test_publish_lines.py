"""JSON Lines as bytes arrive: numbered, whole, and never more in memory than a line may be long."""

from itertools import pairwise

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from mesh.cli.commands.runs.publish_lines import LINE_BYTES_MAX, Lines
from mesh.core.errors import InvalidInput


def fed(*chunks: bytes) -> list[tuple[int, bytes | None]]:
    lines = Lines()
    found = [line for chunk in chunks for line in lines.feed(chunk)]
    return [*found, *lines.feed(b"", last=True)]


def test_lines_are_numbered_from_one_and_the_last_needs_no_end() -> None:
    assert fed(b"a\nb\n\nc") == [(1, b"a"), (2, b"b"), (3, b""), (4, b"c")]
    assert fed() == []
    assert fed(b"a\n") == [(1, b"a")]


@given(st.lists(st.binary(max_size=8)), st.lists(st.integers(0, 40)))
def test_it_does_not_matter_how_the_bytes_are_cut(parts: list[bytes], cuts: list[int]) -> None:
    text = b"\n".join(part.replace(b"\n", b"") for part in parts)
    assume(not text.startswith((b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff", b"\0\0\xfe\xff")))
    places = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
    chunks = [text[a:b] for a, b in pairwise(places)]
    assert fed(*chunks) == fed(text)
    wanted = text.split(b"\n")
    assert [line for _, line in fed(text)] == (wanted if wanted[-1] else wanted[:-1])


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_lines_in_another_encoding_are_utf_8(encoding: str) -> None:
    data = "ä\n\nb".encode(encoding)
    assert fed(*(data[n : n + 3] for n in range(0, len(data), 3))) == [(1, "ä".encode()), (2, b""), (3, b"b")]


def test_text_that_is_not_what_its_mark_says_is_refused_with_its_file() -> None:
    lines = Lines("events.jsonl")
    with pytest.raises(InvalidInput, match=r"events\.jsonl: the text is not utf-16, as its byte order mark says"):
        lines.feed("a\n".encode("utf-16")[:-1], last=True)


def test_a_line_that_is_too_long_is_reported_once_and_the_next_is_read() -> None:
    piece = b"x" * (LINE_BYTES_MAX // 2 + 1)
    assert fed(b"a\n", piece, piece, piece, b"\nb\n") == [(1, b"a"), (2, None), (3, b"b")]
    assert fed(piece + piece + b"\nb") == [(1, None), (2, b"b")]
    assert fed(piece, piece) == [(1, None)]
