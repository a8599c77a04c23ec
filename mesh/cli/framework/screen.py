"""A whole terminal for one view: drawn again at each change, and left as it was before."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from mesh.cli.framework.folding import fold
from mesh.cli.framework.text import visible

if TYPE_CHECKING:
    from rich.console import Console

    from mesh.cli.framework.output import Piece

SHORT_LINES_MAX: Final = 9
"""A terminal of up to so many lines is short: its views say less around what they show."""
MARKED_LINES_MIN: Final = 3
"""Least lines of a view of which one says that there are more."""
CLEAR_LINE, CLEAR_BELOW, HOME = "\x1b[K", "\x1b[J", "\x1b[H"


class Screen:
    """The screen of a terminal. `draw` shows lines from an offset on, and a footer at the bottom."""

    def __init__(self, console: "Console") -> None:
        self._console = console

    @property
    def size(self) -> tuple[int, int]:
        """The columns and lines of the terminal, as far as `draw` uses them."""
        return max(20, self._console.width), max(1, self._console.height)

    @property
    def is_short(self) -> bool:
        """Whether there is room for the most important lines alone."""
        return self.size[1] <= SHORT_LINES_MAX

    def draw(self, lines: "Sequence[Sequence[Piece]]", footer: "Sequence[Sequence[Piece]]", *, offset: int = 0) -> int:
        """Draw. Returns the offset that was used: the last lines stay on the screen.

        The footer has at most half of the lines.
        """
        from rich.text import Text

        width, height = self.size

        def folded(rows: "Sequence[Sequence[Piece]]") -> list[Text]:
            texts = []
            for row in rows:
                line = Text()
                for piece in row:
                    text, style = (piece, "") if isinstance(piece, str) else piece
                    line.append(visible(text), style)
                texts += fold(line, width)
            return texts

        body, below = folded(lines), folded(footer)[: height // 2]
        room = max(1, height - len(below) - (0 if self.is_short else 1))
        offset = max(0, min(offset, len(body) - room))
        shown = body[offset : offset + room]
        if len(body) > offset + room and room >= MARKED_LINES_MIN:
            more = len(body) - offset - room + 1
            shown[-1] = Text(f"… {more} more lines: ↓ scrolls", "dim")
        shown += [Text()] * (room - len(shown))
        self._console.file.write(HOME)
        for n, line in enumerate([*shown, *below]):
            with self._console.capture() as captured:
                self._console.print(line, end="", soft_wrap=True, highlight=False)
            self._console.file.write(("\r\n" if n else "") + captured.get() + CLEAR_LINE)
        self._console.file.write(CLEAR_BELOW)
        self._console.file.flush()
        return offset


@contextmanager
def whole_screen(console: "Console") -> Iterator[Screen]:
    """Take the terminal; give it back as it was."""
    with console.screen(hide_cursor=True):
        yield Screen(console)
