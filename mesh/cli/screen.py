"""What the user sees. Results go to stdout, everything else to stderr; the only file that imports rich, and only when
something is shown: completion by the shell must be quick.

Pieces of a line are plain text or `(text, style)`; every one is made visible before it is printed, so nothing that came
with an event can colour, move or hide anything. Without a terminal there is no colour and no animation, and lines are
neither cut nor folded.
"""

import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any, Final

import orjson

from mesh.cli.text import LINE_CHARS_MAX, escaped_json, visible

if TYPE_CHECKING:
    from rich.console import Console
    from rich.live import Live
    from rich.progress import Progress, ProgressColumn, TaskID
    from rich.text import Text

Piece = str | tuple[str, str]
"""Text, or text with a style such as `dim`, `bold`, `green`."""

DOCUMENT_LINES_MAX: Final = 400
_PLAIN: Final = str.maketrans({"├": "|", "└": "`", "│": "|", "─": "-", "┬": "+", "✓": "+", "✗": "x", "…": "~"})
_PLAIN_MARKS: Final = str.maketrans({"·": "-", "●": "*", "○": "o", "◐": "%", "■": "#", "▸": ">", "→": ">", "⇒": ">"})


class Screen:
    """Prints. `json`: results are JSON Lines and nothing is told in prose on stdout. `loudness`: -1 quiet … 2."""

    def __init__(self, *, json: bool = False, loudness: int = 0, colour: bool = True) -> None:
        self.json = json
        self.loudness = loudness
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

    def say(self, *pieces: Piece) -> None:
        """One line of results, for people; cut at the edge of a terminal."""
        if not self.json:
            self._print(self._out, pieces, cut=self.out_is_terminal)

    def prose(self, *pieces: Piece) -> None:
        """As `say`, but folded at the edge of a terminal."""
        if not self.json:
            self._print(self._out, pieces, cut=False)

    def emit(self, value: Any) -> None:
        """One result as a JSON line; only with `--json`."""
        if self.json:
            text = escaped_json(orjson.dumps(value, default=_plain, option=orjson.OPT_NON_STR_KEYS).decode())
            _write(sys.stdout, text + "\n")

    def file(self, text: str) -> None:
        """A whole file for programs, uncut and without colour; nothing with `--json`. For what was written by us and
        holds no control character, such as YAML."""
        if not self.json:
            _write(sys.stdout, text)

    def complain(self, value: Any) -> None:
        """An error as a JSON line on stderr."""
        _write(sys.stderr, escaped_json(orjson.dumps({"error": value}, default=_plain).decode()) + "\n")

    def document(self, text: str, *, indent: str = "") -> None:
        """Several lines of foreign text, each made visible; at most 400 of them, each cut to a sane length."""
        lines = text.splitlines()
        for line in lines[:DOCUMENT_LINES_MAX]:
            self.say(indent, visible(line, 1_000 if not self.out_is_terminal else LINE_CHARS_MAX))
        if len(lines) > DOCUMENT_LINES_MAX:
            self.say((f"{indent}… {len(lines) - DOCUMENT_LINES_MAX:,} more lines", "dim"))

    def table(self, heads: Sequence[str], rows: Iterable[Sequence[Piece]], *, flexible: int | None = None) -> None:
        """Columns, as wide as their content; empty ones are left out. On a terminal column `flexible` gives way first.
        A leading `>` of a head aligns right."""
        if self.json:
            return
        from rich.cells import cell_len
        from rich.text import Text

        cells = [[_text(cell) for cell in row] for row in rows]
        kept = [n for n in range(len(heads)) if any(row[n].plain for row in cells)]
        cells = [[row[n] for n in kept] for row in cells]
        heads = [heads[n] for n in kept]
        flexible = kept.index(flexible) if flexible in kept else None
        right = [head.startswith(">") for head in heads]
        top = [Text(head.lstrip(">"), "dim") for head in heads]
        widths = [max(cell_len(row[n].plain) for row in [top, *cells]) for n in range(len(heads))]
        if flexible is not None and self.out_is_terminal:
            over = sum(widths) + 2 * (len(widths) - 1) - self._out.width
            widths[flexible] = max(min(widths[flexible], 12), widths[flexible] - max(0, over))
        for row in [top, *cells]:
            line = Text()
            for n, cell in enumerate(row):
                cell.truncate(widths[n], overflow="ellipsis")
                gap = " " * (widths[n] - cell_len(cell.plain))
                last = n == len(row) - 1
                line.append_text(Text.assemble(gap, cell) if right[n] else Text.assemble(cell, "" if last else gap))
                line.append("" if last else "  ")
            self._print_text(self._out, line, cut=self.out_is_terminal)

    # ------------------------------------------------------------------------------------------ everything else

    def note(self, *pieces: Piece, loudness: int = 0) -> None:
        """A line beside the results; silent with `--quiet`."""
        if self.loudness >= loudness:
            self._print(self._err, pieces, cut=False)

    def warn(self, *pieces: Piece) -> None:
        """A line that is shown also with `--quiet`."""
        self._print(self._err, pieces, cut=False)

    @contextmanager
    def status(self, text: str) -> Iterator[None]:
        """A last line that changes while something goes on; only on a terminal. It does not move by itself."""
        host = self._host_of_life()
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
        host = self._host_of_life()
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

    def _host_of_life(self) -> "Console | None":
        """The console for something that changes; None where nobody looks, or where it would tear JSON apart."""
        if self.loudness < 0 or os.environ.get("TERM") == "dumb" or (self.json and self.out_is_terminal):
            return None
        return self._err if self.err_is_terminal else None

    # ------------------------------------------------------------------------------------------------ innermost

    def _print(self, console: "Console", pieces: Sequence[Piece], *, cut: bool) -> None:
        from rich.text import Text

        line = Text()
        for piece in pieces:
            line.append_text(_text(piece))
        self._print_text(console, line, cut=cut)

    def _print_text(self, console: "Console", line: "Text", *, cut: bool) -> None:
        line.rstrip()
        if not (console.encoding or "").startswith("utf"):
            line.plain = line.plain.translate(_PLAIN).translate(_PLAIN_MARKS)
        if console.is_terminal:
            console = self._host or console  # it knows how to print above what changes
            console.print(line, no_wrap=cut, overflow="ellipsis" if cut else "fold", highlight=False)
        else:
            console.print(line, soft_wrap=True, highlight=False)


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
    )
    return paper, terminal


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
