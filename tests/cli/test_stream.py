"""JSON Lines as bytes arrive: numbered, whole, and never more in memory than a line may be long."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from mesh.cli.stream import LINE_BYTES_MAX, Lines


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
    places = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
    chunks = [text[a:b] for a, b in pairwise(places)]
    assert fed(*chunks) == fed(text)
    wanted = text.split(b"\n")
    assert [line for _, line in fed(text)] == (wanted if wanted[-1] else wanted[:-1])


def test_an_over_long_line_is_told_once_and_the_next_is_read() -> None:
    piece = b"x" * (LINE_BYTES_MAX // 2 + 1)
    assert fed(b"a\n", piece, piece, piece, b"\nb\n") == [(1, b"a"), (2, None), (3, b"b")]
    assert fed(piece + piece + b"\nb") == [(1, None), (2, b"b")]
    assert fed(piece, piece) == [(1, None)]
