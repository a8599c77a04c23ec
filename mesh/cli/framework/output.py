"""What the user sees. Results go to stdout, everything else to stderr; the only file that imports rich, and only when
something is shown: completion by the shell must be quick.

Pieces of a line are plain text or `(text, style)`; every one is made visible before it is printed, so nothing that came
with an event can colour, move or hide anything. A terminal of any width gets the whole text: long lines are folded.
Without a terminal there is no colour and no animation, and lines are not folded.
"""

import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import zip_longest
from typing import IO, TYPE_CHECKING, Any, Final

import orjson

from mesh.cli.framework.text import escaped_json, visible

if TYPE_CHECKING:
    from rich.console import Console
    from rich.live import Live
    from rich.progress import Progress, ProgressColumn, TaskID
    from rich.text import Text

Piece = str | tuple[str, str]
"""Text, or text with a style such as `dim`, `bold`, `green`."""

DOCUMENT_LINES_MAX: Final = 400
WIDTH_MIN: Final = 20
"""A terminal that says it is narrower gets lines of this width, and folds them itself."""
COLUMN_CELLS_MIN: Final = 8
"""No column of a table is folded to less."""
WORD_CELLS_KEPT: Final = 12
"""Words of this length, such as ids, are the last to be folded."""
HANG: Final = 2
"""Further lines of a folded one begin this far to the right of the first."""
_PLAIN: Final = str.maketrans(dict(zip("├└│─┬✓✗…–‖×·●○◐■▸→⇒", "|`|-++x~-=x-*o%#>>>", strict=True)))
"""What a stream that is not UTF-8 gets for our own marks."""


class Output:
    """Prints. `json`: results are JSON Lines and nothing is told in prose on stdout. `loudness`: -1 quiet … 2."""

    def __init__(self, *, json: bool = False, verbosity: int = 0, colour: bool = True) -> None:
        self.json = json
        self.verbosity = verbosity
        self._out, self.out_is_terminal = _console(sys.stdout, colour)
        self._err, self.err_is_terminal = _console(sys.stderr, colour)
        self._host: Console | None = None
        """While something changes on the screen: the console that draws it."""
        self._live: Live | None = None

    @property
    def interactive(self) -> bool:
        """Whether somebody looks at the results as they come."""
        return self.out_is_terminal and not self.json

    # ------------------------------------------------------------------------------------------------- results

    def print(self, *pieces: Piece) -> None:
        """One line of results, for people; folded at the edge of a terminal."""
        if not self.json:
            self._print(self._out, pieces)

    def emit(self, value: Any) -> None:
        """One result as a JSON line; only with `--json`."""
        if self.json:
            text = escaped_json(orjson.dumps(value, default=_plain, option=orjson.OPT_NON_STR_KEYS).decode())
            _write(sys.stdout, text + "\n")

    def print_raw(self, text: str) -> None:
        """A whole file for programs, uncut and without colour; nothing with `--json`. For what was written by us and
        holds no control character, such as YAML."""
        if not self.json:
            _write(sys.stdout, text)

    def emit_error(self, value: Any) -> None:
        """An error as a JSON line on stderr."""
        _write(sys.stderr, escaped_json(orjson.dumps({"error": value}, default=_plain).decode()) + "\n")

    def document(self, text: str, *, indent: str = "") -> None:
        """Several lines of foreign text, each made visible; at most 400 of them, each cut to a sane length."""
        lines = text.splitlines()
        for line in lines[:DOCUMENT_LINES_MAX]:
            self.print(indent, line)
        if len(lines) > DOCUMENT_LINES_MAX:
            self.print((f"{indent}… {len(lines) - DOCUMENT_LINES_MAX:,} more lines", "dim"))

    def table(self, heads: Sequence[str], rows: Iterable[Sequence[Piece]]) -> None:
        """Columns, as wide as their content; empty ones are left out. A leading `>` of a head aligns right.

        On a narrow terminal cells are folded. If even that leaves a column too little room, each cell gets a line.
        """
        if self.json:
            return
        from rich.text import Text

        cells = [[_text(cell) for cell in row] for row in rows]
        kept = [n for n in range(len(heads)) if any(row[n].plain for row in cells)]
        cells = [[row[n] for n in kept] for row in cells]
        right = [heads[n].startswith(">") for n in kept]
        top = [Text(heads[n].lstrip(">"), "dim") for n in kept]
        widths = _widths([top, *cells], self.width)
        if widths is None:
            self._list(top, cells)
            return
        for row in [top, *cells]:
            for line in _folded_row(row, widths, right):
                self._print_text(self._out, line)

    def _list(self, top: "list[Text]", cells: "list[list[Text]]") -> None:
        """A table with a line for each cell that is not empty, head before value."""
        from rich.text import Text

        for row in cells:
            for n, (head, cell) in enumerate(zip(top, row, strict=True)):
                words = [part for part in (head, cell) if part.plain.strip()]
                if cell.plain.strip():
                    self._print_text(self._out, Text(" " * HANG if n else "").append_text(Text(" ").join(words)))

    # ------------------------------------------------------------------------------------------ everything else

    def note(self, *pieces: Piece, verbosity: int = 0) -> None:
        """A line beside the results; silent with `--quiet`."""
        if self.verbosity >= verbosity:
            self._print(self._err, pieces)

    def warn(self, *pieces: Piece) -> None:
        """A line that is shown also with `--quiet`."""
        self._print(self._err, pieces)

    @contextmanager
    def status(self, text: str) -> Iterator[None]:
        """A last line that changes while something goes on; only on a terminal. It does not move by itself."""
        host = self._live_console()
        if host is None:
            yield
            return
        from rich.live import Live
        from rich.text import Text

        self._host = host
        self._live = Live(Text(visible(text), "dim"), console=host, auto_refresh=False, transient=True)
        try:
            with self._live:
                yield
        finally:
            self._host = self._live = None

    def update(self, text: str) -> None:
        """Another text for the changing last line."""
        if self._live is not None:
            from rich.text import Text

            self._live.update(Text(visible(text), "dim"), refresh=True)

    @contextmanager
    def progress(self, total_bytes: int | None) -> Iterator["Advance"]:
        """A bar for something that is read from a file, or a counter where its size is not known."""
        host = self._live_console()
        if host is None:
            yield Advance(None, None)
            return
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

        columns: list[ProgressColumn] = [BarColumn(bar_width=30), TaskProgressColumn()] if total_bytes else []
        self._host = host
        try:
            with Progress(*columns, TextColumn("{task.description}"), console=host, transient=True) as bar:
                yield Advance(bar, bar.add_task("", total=total_bytes))
        finally:
            self._host = None

    @property
    def width(self) -> int | None:
        """How many cells a line of results has; None without a terminal."""
        return _width(self._out)

    def _live_console(self) -> "Console | None":
        """The console for something that changes. None without a terminal, where the terminal gets no control codes
        (`NO_COLOR`, `TERM=dumb`), and where the change would tear JSON apart."""
        if self.verbosity < 0 or self._err.no_color or (self.json and self.out_is_terminal):
            return None
        return self._err if self.err_is_terminal else None

    # ------------------------------------------------------------------------------------------------ innermost

    def _print(self, console: "Console", pieces: Sequence[Piece]) -> None:
        from rich.text import Text

        line = Text()
        for piece in pieces:
            line.append_text(_text(piece))
        self._print_text(console, line)

    def _print_text(self, console: "Console", line: "Text") -> None:
        line.rstrip()
        if not (console.encoding or "").startswith("utf"):
            line.plain = line.plain.translate(_PLAIN)
        width = _width(console)
        host = console if width is None else self._host or console  # it knows how to print above what changes
        for part in [line] if width is None else _folded(line, width):
            host.print(part, soft_wrap=True, highlight=False)


class Advance:
    """Moves a progress bar, if there is one."""

    def __init__(self, bar: "Progress | None", task: "TaskID | None") -> None:
        self._bar = bar
        self._task = task

    def advance(self, read_bytes: int, text: str) -> None:
        """So many bytes more; `text` says what that meant."""
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, advance=read_bytes, description=text)


def _console(stream: IO[str], colour: bool) -> tuple["Console", bool]:
    """A console for a stream, and whether a person is at its other end."""
    from rich.console import Console

    class Paper(Console):
        """Does not end the process when the reader of a pipe has gone: the caller decides."""

        def on_broken_pipe(self) -> None:
            raise BrokenPipeError

    terminal = stream.isatty()
    environ = os.environ
    wanted = terminal or bool(environ.get("FORCE_COLOR"))
    forbidden = not colour or bool(environ.get("NO_COLOR")) or environ.get("TERM") == "dumb"
    if hasattr(stream, "reconfigure"):
        stream.reconfigure(errors="backslashreplace")
    system: Any = "auto" if wanted and not forbidden else None
    paper = Paper(
        file=stream,
        color_system=system,
        force_terminal=terminal or (wanted and not forbidden),
        no_color=forbidden,
        markup=False,
        emoji=False,
        highlight=False,
        soft_wrap=not terminal,
        _environ={name: value for name, value in environ.items() if name not in _SIZES or _is_size(value)},
    )
    return paper, terminal


_SIZES: Final = ("COLUMNS", "LINES")


def _is_size(text: str) -> bool:
    """Whether a variable tells a size of the screen. If not, the terminal itself is asked."""
    return text.isascii() and text.isdigit() and len(text) <= 4 and int(text) > 0


def _width(console: "Console") -> int | None:
    return None if console.soft_wrap else max(console.width, WIDTH_MIN)


def _folded(line: "Text", width: int) -> "list[Text]":
    """A line as several that fit, the further ones a little to the right."""
    from rich.text import Text

    if _cells(line.plain) <= width:
        return [line]
    spaces = len(line.plain) - len(line.plain.lstrip(" "))
    lead = min(spaces, width // 4)
    parts = _divided(line[spaces:], width - lead - HANG)
    return [Text(" " * (lead + HANG if n else lead)).append_text(part) for n, part in enumerate(parts)]


def _folded_row(row: "Sequence[Text]", widths: Sequence[int], right: Sequence[bool]) -> "Iterator[Text]":
    """The lines of a row of a table: each cell folded in its column."""
    from rich.text import Text

    columns = [_divided(cell, width) for cell, width in zip(row, widths, strict=True)]
    for cells in zip_longest(*columns, fillvalue=Text()):
        line = Text()
        for n, cell in enumerate(cells):
            gap = " " * (widths[n] - _cells(cell.plain))
            line.append("  " if n else "")
            line.append_text(Text.assemble(gap, cell) if right[n] else Text.assemble(cell, gap))
        yield line


def _divided(text: "Text", width: int) -> "list[Text]":
    """Pieces of at most `width` cells, without the spaces at their ends."""
    pieces = list(text.divide(_breaks(text.plain, width)))
    for piece in pieces:
        piece.rstrip()
    return pieces


def _breaks(text: str, width: int) -> list[int]:
    """Where to break a text: behind a space if there is one, else before the character that is too much.

    The wrapping of rich loses characters, or raises IndexError, where a text has joining or combining ones.
    """
    breaks: list[int] = []
    if _cells(text) <= width:
        return breaks
    begin = word = used = 0
    for n, char in enumerate(text):
        size = _cells(char)
        while used + size > width and char != " " and n > begin:
            begin = word if word > begin else n
            breaks.append(begin)
            used = _cells(text[begin:n])
        used += size
        if char == " ":
            word = n + 1
    return breaks


def _cells(text: str) -> int:
    """How many cells a terminal needs at most: one that joins characters needs less."""
    if text.isascii():
        return len(text)
    from rich.cells import get_character_cell_size

    return sum(1 if char == _EMOJI_STYLE else get_character_cell_size(char) for char in text)


_EMOJI_STYLE: Final = "\ufe0f"
"""Makes the character before it a wide one."""


def _widths(rows: "Sequence[Sequence[Text]]", room: int | None) -> list[int] | None:
    """The width of each column of a table; None if no widths fit.

    The widest gives way first. Words, then ids are kept whole while there is room.
    """
    columns = [[cell.plain for cell in column] for column in zip(*rows, strict=True)]
    widths = [max(map(_cells, column)) for column in columns]
    if room is None:
        return widths
    room -= 2 * (len(widths) - 1)
    if sum(widths) <= room:
        return widths
    words = [max((_cells(word) for cell in column for word in cell.split()), default=0) for column in columns]
    floors = [max(word, COLUMN_CELLS_MIN) for word in words]
    for least in (floors, [min(floor, WORD_CELLS_KEPT) for floor in floors]):
        while sum(widths) > room:
            widest = max(range(len(widths)), key=lambda n: (widths[n] > least[n], widths[n]))
            if widths[widest] <= least[widest]:
                break
            widths[widest] -= 1
    for n in reversed(range(len(widths))):  # the id that names the row is on the left
        widths[n] -= max(0, min(sum(widths) - room, widths[n] - COLUMN_CELLS_MIN))
    return widths if sum(widths) <= room else None


def _text(piece: Piece) -> "Text":
    from rich.text import Text

    return Text(visible(piece)) if isinstance(piece, str) else Text(visible(piece[0]), piece[1])


def _write(stream: IO[str], text: str) -> None:
    stream.write(text)
    stream.flush()


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    if hasattr(value, "_asdict"):
        return value._asdict()
    raise TypeError(f"{type(value).__name__} is not JSON-able")
