"""Prints for the user: results to stdout, everything else to stderr.

A line consists of pieces: plain text or `(text, style)`. Each piece is made visible before it is printed, so text of an
event cannot colour, move or hide anything. A terminal of any width gets the whole text: long lines are folded. Without
a terminal there is no colour and no animation, and lines are not folded.

rich is imported only when something is printed, so that completion by the shell is quick.
"""

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any, Final, TypeVar

import orjson

from mesh.cli.framework.folding import HANG, column_widths, fold, fold_row
from mesh.cli.framework.text import escaped_json, visible

if TYPE_CHECKING:
    from rich.console import Console
    from rich.live import Live
    from rich.progress import Progress, ProgressColumn, TaskID
    from rich.text import Text

    from mesh.cli.framework.screen import Screen

T = TypeVar("T")
Piece = str | tuple[str, str]
"""Text, or text with a style such as `dim`, `bold`, `green`."""

DOCUMENT_LINES_MAX: Final = 400
WIDTH_MIN: Final = 20
"""A narrower terminal gets lines of this width, and folds them itself."""
_PLAIN: Final = str.maketrans(dict(zip("├└│─┬✓✗…–‖×·●○◐■▸→⇒", "|`|-++x~-=x-*o%#>>>", strict=True)))
"""Replacements of our own marks on a stream that is not UTF-8."""


class Output:
    """The output of a command. `json`: stdout has JSON Lines only. `verbosity`: from -1 (quiet) to 2."""

    def __init__(self, *, json: bool = False, verbosity: int = 0, colour: bool = True) -> None:
        self.json = json
        self.verbosity = verbosity
        self._out, self.out_is_terminal = _console(sys.stdout, colour)
        self._err, self.err_is_terminal = _console(sys.stderr, colour)
        self._host: Console | None = None
        """The console that draws a changing line or bar, while there is one."""
        self._live: Live | None = None

    @property
    def interactive(self) -> bool:
        """Whether results go to a terminal, as text."""
        return self.out_is_terminal and not self.json

    # ------------------------------------------------------------------------------------------------- results

    def print(self, *pieces: Piece, folds: bool = True) -> None:
        """Print one line of results as text, folded at the edge of a terminal. Prints nothing with `--json`.

        `folds`: false for a command to be copied, which the terminal wraps by itself.
        """
        if not self.json:
            self._print(self._out, pieces, folds=folds)

    def emit(self, value: Any) -> None:
        """Print one result as a JSON line; only with `--json`."""
        if self.json:
            text = escaped_json(orjson.dumps(value, default=_plain, option=orjson.OPT_NON_STR_KEYS).decode())
            _write(sys.stdout, text + "\n")

    def print_raw(self, text: str) -> None:
        """Print a file such as YAML, uncut; nothing with `--json`. It must hold no control character."""
        if not self.json:
            _write(sys.stdout, text)

    def write_lines(self, lines: Iterable[bytes]) -> None:
        """Print lines of JSON as they are, with and without `--json`."""
        _write(sys.stdout, "".join(escaped_json(line.decode().rstrip("\n")) + "\n" for line in lines))

    def emit_error(self, value: Any) -> None:
        """Print an error as a JSON line on stderr."""
        _write(sys.stderr, escaped_json(orjson.dumps({"error": value}, default=_plain).decode()) + "\n")

    def document(self, text: str, *, indent: str = "") -> None:
        """Print a text of an event line by line: at most 400 lines, each cut at the limit of `visible`."""
        lines = text.splitlines()
        for line in lines[:DOCUMENT_LINES_MAX]:
            self.print(indent, line)
        if len(lines) > DOCUMENT_LINES_MAX:
            self.print((f"{indent}… {len(lines) - DOCUMENT_LINES_MAX:,} more lines", "dim"))

    def listing(
        self,
        heads: Sequence[str],
        items: Sequence[T],
        row: Callable[[T], Sequence[Piece]],
        as_json: Callable[[T], Any],
        *,
        rows_max: int | None = None,
    ) -> None:
        """Print items as a table of at most `rows_max` rows; with `--json`, each of them as a JSON line."""
        if self.json:
            for item in items:
                self.emit(as_json(item))
        elif items:
            self.table(heads, map(row, items[:rows_max]))
            if rows_max is not None:
                self.omitted(len(items) - rows_max)

    def omitted(self, number: int) -> None:
        """Print how many items of a listing were not shown; nothing for 0 and less."""
        if number > 0:
            self.print((f"  … and {number:,} more", "dim"))

    def table(self, heads: Sequence[str], rows: Iterable[Sequence[Piece]]) -> None:
        """Print columns, as wide as their content; empty ones are left out. A head that begins with `>` aligns right.

        On a narrow terminal cells are folded. If even that leaves a column too little room, each cell gets a line.
        """
        if self.json:
            return
        from rich.text import Text

        cells = [[_text(cell) for cell in row] for row in rows]
        kept = [n for n in range(len(heads)) if any(row[n].plain for row in cells)]
        top = [Text(heads[n].lstrip(">"), "dim") for n in kept]
        right = [heads[n].startswith(">") for n in kept]
        lines = [top, *([row[n] for n in kept] for row in cells)]
        widths = column_widths(lines, self.width)
        if widths is None:
            self._list(top, lines[1:])
            return
        for row in lines:
            for line in fold_row(row, widths, right):
                self._print_text(self._out, line)

    def _list(self, top: "list[Text]", cells: "list[list[Text]]") -> None:
        """Print a table with one line for each cell that is not empty, head before value."""
        from rich.text import Text

        for row in cells:
            for n, (head, cell) in enumerate(zip(top, row, strict=True)):
                words = [part for part in (head, cell) if part.plain.strip()]
                if cell.plain.strip():
                    self._print_text(self._out, Text(" " * HANG if n else "").append_text(Text(" ").join(words)))

    # ------------------------------------------------------------------------------------------ everything else

    def note(self, *pieces: Piece, verbosity: int = 0) -> None:
        """Print a line to stderr; nothing with `--quiet`."""
        if self.verbosity >= verbosity:
            self._print(self._err, pieces)

    def warn(self, *pieces: Piece, folds: bool = True) -> None:
        """Print a line to stderr, also with `--quiet`. `folds`: as for `print`."""
        self._print(self._err, pieces, folds=folds)

    @contextmanager
    def status(self, text: str) -> Iterator[None]:
        """Show a last line that `update` changes; only on a terminal."""
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
        """Change the last line that `status` shows."""
        if self._live is not None:
            from rich.text import Text

            self._live.update(Text(visible(text), "dim"), refresh=True)

    @contextmanager
    def progress(self, total_bytes: int | None) -> Iterator["Advance"]:
        """Show a bar for a total, or a counter where the total is not known."""
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

    @contextmanager
    def screen(self) -> Iterator["Screen"]:
        """Take the whole terminal of the results; only if `interactive`."""
        from mesh.cli.framework.screen import whole_screen

        with whole_screen(self._out) as screen:
            yield screen

    @property
    def width(self) -> int | None:
        """The number of cells in a line of results; None without a terminal."""
        return _width(self._out)

    def _live_console(self) -> "Console | None":
        """The console for changing lines.

        None without a terminal, where control codes are forbidden (`NO_COLOR`, `TERM=dumb`), and where JSON Lines go
        to the same terminal.
        """
        if self.verbosity < 0 or self._err.no_color or (self.json and self.out_is_terminal):
            return None
        return self._err if self.err_is_terminal else None

    # ------------------------------------------------------------------------------------------------ innermost

    def _print(self, console: "Console", pieces: Sequence[Piece], *, folds: bool = True) -> None:
        if _width(console) is None and console.color_system is None:  # rich takes six times as long for the same text
            text = "".join([visible(piece if isinstance(piece, str) else piece[0]) for piece in pieces]).rstrip()
            _write(console.file, (text if _is_utf(console) else text.translate(_PLAIN)) + "\n")
            return
        from rich.text import Text

        line = Text()
        for piece in pieces:
            line.append_text(_text(piece))
        self._print_text(console, line, folds=folds)

    def _print_text(self, console: "Console", line: "Text", *, folds: bool = True) -> None:
        line.rstrip()
        if not _is_utf(console):
            line.plain = line.plain.translate(_PLAIN)
        width = _width(console)
        host = console if width is None else self._host or console  # it prints above the changing line
        for part in fold(line, width) if folds and width is not None else [line]:
            host.print(part, soft_wrap=True, highlight=False)


class Advance:
    """Moves a progress bar; does nothing where there is none."""

    def __init__(self, bar: "Progress | None", task: "TaskID | None") -> None:
        self._bar = bar
        self._task = task

    def advance(self, read_bytes: int, text: str) -> None:
        """Advance the bar by this many bytes, and show `text` beside it."""
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, advance=read_bytes, description=text)


def _console(stream: IO[str], colour: bool) -> tuple["Console", bool]:
    """Make a console for a stream, and say whether the stream is a terminal."""
    from rich.console import Console

    class Quiet(Console):
        """Raises BrokenPipeError instead of ending the process."""

        def on_broken_pipe(self) -> None:
            raise BrokenPipeError

    terminal = stream.isatty()
    environ = os.environ
    wanted = terminal or bool(environ.get("FORCE_COLOR"))
    forbidden = not colour or bool(environ.get("NO_COLOR")) or environ.get("TERM") == "dumb"
    if hasattr(stream, "reconfigure"):
        stream.reconfigure(errors="backslashreplace")
    system: Any = "auto" if wanted and not forbidden else None
    console = Quiet(
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
    return console, terminal


_SIZES: Final = ("COLUMNS", "LINES")


def _is_size(text: str) -> bool:
    """Whether a variable holds a size of the terminal. If not, the terminal is asked."""
    return text.isascii() and text.isdigit() and len(text) <= 4 and int(text) > 0


def _width(console: "Console") -> int | None:
    return None if console.soft_wrap else max(console.width, WIDTH_MIN)


def _is_utf(console: "Console") -> bool:
    return (console.encoding or "").startswith("utf")


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
