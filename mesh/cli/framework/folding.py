"""Fold lines and tables to the width of a terminal, without cutting any text."""

from collections.abc import Iterator, Sequence
from itertools import zip_longest
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from rich.text import Text

COLUMN_CELLS_MIN: Final = 8
"""The least width of a column of a table."""
WORD_CELLS_KEPT: Final = 12
"""Words up to this length, such as ids, are the last to be folded."""
HANG: Final = 2
"""The indentation of further lines of a folded line."""


def fold(line: "Text", width: int) -> "list[Text]":
    """Fold a line into lines that fit; further lines are indented."""
    from rich.text import Text

    if cells_of(line.plain) <= width:
        return [line]
    spaces = len(line.plain) - len(line.plain.lstrip(" "))
    lead = min(spaces, width // 4)
    parts = _divide(line[spaces:], width - lead - HANG)
    return [Text(" " * (lead + HANG if n else lead)).append_text(part) for n, part in enumerate(parts)]


def fold_row(row: "Sequence[Text]", widths: Sequence[int], right: Sequence[bool]) -> "Iterator[Text]":
    """Fold a row of a table: each cell in its column."""
    from rich.text import Text

    columns = [_divide(cell, width) for cell, width in zip(row, widths, strict=True)]
    for cells in zip_longest(*columns, fillvalue=Text()):
        line = Text()
        for n, cell in enumerate(cells):
            gap = " " * (widths[n] - cells_of(cell.plain))
            line.append("  " if n else "")
            line.append_text(Text.assemble(gap, cell) if right[n] else Text.assemble(cell, gap))
        yield line


def _divide(text: "Text", width: int) -> "list[Text]":
    """Split a text into pieces of at most `width` cells, without spaces at their ends."""
    pieces = list(text.divide(_breaks(text.plain, width)))
    for piece in pieces:
        piece.rstrip()
    return pieces


def _breaks(text: str, width: int) -> list[int]:
    """The positions at which to break a text: behind a space if there is one, else before the first character too many.

    Not rich's own wrapping: it loses characters or raises IndexError for texts with joining or combining characters.
    """
    breaks: list[int] = []
    if cells_of(text) <= width:
        return breaks
    begin = word = used = 0
    for n, char in enumerate(text):
        size = cells_of(char)
        while used + size > width and char != " " and n > begin:
            begin = word if word > begin else n
            breaks.append(begin)
            used = cells_of(text[begin:n])
        used += size
        if char == " ":
            word = n + 1
    return breaks


def cells_of(text: str) -> int:
    """The number of cells that a terminal needs at most. A terminal that joins characters needs fewer."""
    if text.isascii():
        return len(text)
    from rich.cells import get_character_cell_size

    return sum(1 if char == _EMOJI_STYLE else get_character_cell_size(char) for char in text)


_EMOJI_STYLE: Final = "\ufe0f"
"""Makes the character before it wide."""


def column_widths(rows: "Sequence[Sequence[Text]]", room: int | None) -> list[int] | None:
    """The width of each column of a table; None if no widths fit.

    The widest column shrinks first. Words, then ids are kept whole while there is room.
    """
    columns = [[cell.plain for cell in column] for column in zip(*rows, strict=True)]
    widths = [max(map(cells_of, column)) for column in columns]
    if room is None:
        return widths
    room -= 2 * (len(widths) - 1)
    if sum(widths) <= room:
        return widths
    words = [max((cells_of(word) for cell in column for word in cell.split()), default=0) for column in columns]
    floors = [max(word, COLUMN_CELLS_MIN) for word in words]
    for least in (floors, [min(floor, WORD_CELLS_KEPT) for floor in floors]):
        _shrink(widths, least, room)
    for n in reversed(range(len(widths))):  # the id that names the row is on the left
        widths[n] -= max(0, min(sum(widths) - room, widths[n] - COLUMN_CELLS_MIN))
    return widths if sum(widths) <= room else None


def _shrink(widths: list[int], least: Sequence[int], room: int) -> None:
    """Shrink the widest columns, none below its least width, until the table fits or nothing can shrink."""
    while sum(widths) > room:
        widest = max(range(len(widths)), key=lambda n: (widths[n] > least[n], widths[n]))
        if widths[widest] <= least[widest]:
            return
        widths[widest] -= 1
