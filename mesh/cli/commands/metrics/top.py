"""`mesh top`: a mesh as it stands now, drawn again every second on a terminal."""

import asyncio
import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Final

import typer

from mesh.cli.framework.failure import INTERRUPTED
from mesh.cli.framework.options import command, verb
from mesh.cli.framework.selectors import time_form
from mesh.cli.framework.session import CommonOptions, Session
from mesh.core.errors import InvalidInput, MeshError

if TYPE_CHECKING:
    from mesh.adapters.ports import ReadLog
    from mesh.cli.framework.output import Piece
    from mesh.cli.framework.screen import Screen
    from mesh.core.history.run_summary import Summary
    from mesh.operations.health.live_state import LiveState, MeshState

EVERY_S: Final = 1.0
SPAN_MS_MIN: Final = 10_000
KEYS: Final = (("↑↓", ""), ("s", "sort"), ("x", "stop"), ("r", "resume"), ("q", "quit"))
app = verb()


@command(app, "top", example="mesh top --once")
async def top(
    session: Session,
    *,
    once: Annotated[bool, typer.Option("--once", help="print one table and end, also on a terminal")] = False,
    since: Annotated[
        str, typer.Option("--since", metavar="TIME", help="time that rates, errors, P95 and USD are taken over")
    ] = "1m",
) -> int | None:
    """Show agents, runs in flight, stops and alerts, live.

    LAG and AGE: records behind, and the age of the oldest. BUSY: how many of them workers may be at. RATE: answers a
    second. P95: time of work. ERR: attempts that failed. On a terminal it is drawn every second: arrows choose an
    agent, `s` sorts, `x` stops the agent as `mesh stop` does, after `y`, `r` resumes it, `q` ends. Into a pipe, with
    --once and with --json one table is printed.
    """
    from mesh.operations.health.live_state import LiveState

    form = time_form("--since", since)
    async with session.read_log() as log:
        span_ms = log.now_ms() - form.on(log.now_ms())
        if span_ms < SPAN_MS_MIN:
            raise InvalidInput("this time is too short", code="bad_value", where="--since", expected="10s or more")
        source = StateSource(session, log, LiveState(log, session.topology, span_ms))
        if not once and session.output.interactive and sys.stdin.isatty():
            return await _live(session, source)
        with session.output.status("reading the log"):
            snapshot, runs = await source.take()
    _print(session, snapshot, runs)
    return None


class StateSource:
    """Takes snapshots together with the runs in flight."""

    def __init__(self, session: Session, log: "ReadLog", state: "LiveState") -> None:
        self._log, self._state = log, state
        self._quiet = Session(CommonOptions(*session.options)._replace(quiet=True))
        """Finds runs without a line of progress."""

    async def take(self) -> "tuple[MeshState, Sequence[Summary]]":
        """Return the present state, and the latest open runs."""
        from mesh.cli.framework.run_finding import list_runs
        from mesh.cli.views.top_view import RUNS_MAX
        from mesh.core.history.run_query import RunQuery

        snapshot = await self._state.take()
        return snapshot, await list_runs(self._quiet, self._log, RunQuery(state="open"), limit=RUNS_MAX, where=None)


def _print(session: Session, snapshot: "MeshState", runs: "Sequence[Summary]") -> None:
    from mesh.cli.views import top_view

    output = session.output
    output.emit(top_view.document(snapshot, session.topology.name, runs))
    for line in top_view.summary(snapshot, session.topology.name, runs):
        output.print(*line)
    output.print()
    output.table(top_view.heads(), map(top_view.row, snapshot.agents))
    for line in top_view.run_lines(runs, snapshot.at_ms, top_view.RUNS_MAX + 2):
        output.print(*line)


async def _live(session: Session, source: StateSource) -> int:
    from mesh.cli.framework.keys import END, INTERRUPT, Keys

    loop = asyncio.get_running_loop()
    with session.output.screen() as screen, Keys() as keys:
        board = TopScreen(session, screen)
        board.draw()
        pressed, refreshed = loop.create_task(keys.read()), loop.create_task(_refresh(source, board))
        try:
            while True:
                await asyncio.wait({pressed, refreshed}, return_when=asyncio.FIRST_COMPLETED)
                if refreshed.done():
                    refreshed.result()
                    refreshed = loop.create_task(_refresh(source, board, after_s=EVERY_S))
                if pressed.done():
                    key = pressed.result()
                    if key in (END, INTERRUPT) or not await board.press(key):
                        return INTERRUPTED if key == INTERRUPT else 0
                    pressed = loop.create_task(keys.read())
                board.draw()
        finally:
            for task in (pressed, refreshed):
                task.cancel()
            await asyncio.wait({pressed, refreshed})


async def _refresh(source: StateSource, board: "TopScreen", after_s: float = 0.0) -> None:
    await asyncio.sleep(after_s)
    try:
        board.show(*await source.take())
    except MeshError as error:
        board.fail(error)


class TopScreen:
    """What is on the screen, and what keys do with it."""

    def __init__(self, session: Session, screen: "Screen") -> None:
        from mesh.cli.views.top_view import Picture

        self._session, self._screen = session, screen
        self._picture = Picture(selected=next(iter(session.topology.agents), ""))
        self._snapshot: MeshState | None = None
        self._runs: Sequence[Summary] = ()
        self._message: Piece = ""
        """What the last key did."""
        self._trouble: Piece = ("reading the log …", "dim")
        """Why the screen is not up to date."""
        self._asked = ""
        """The agent that `y` stops."""

    def show(self, snapshot: "MeshState", runs: "Sequence[Summary]") -> None:
        """Take a new state."""
        self._snapshot, self._runs, self._trouble = snapshot, runs, ""

    def fail(self, error: MeshError) -> None:
        """Say why there is no new state; the last one stays on the screen."""
        self._trouble = (f"not up to date: {error}", "red")

    async def press(self, key: str) -> bool:
        """Do what a key means. Returns False for the end."""
        from mesh.cli.views.top_view import SORTS, ordered

        asked, self._asked = self._asked, ""
        if asked:
            await self._answer(asked, key)
            return True
        if key in ("q", "escape"):
            return False
        self._message = ""
        agents = [] if self._snapshot is None else [s.spec.name for s in ordered(self._snapshot, self._picture.sort)]
        chosen = self._picture.selected
        if key in ("up", "down", "k", "j") and agents:
            at = agents.index(chosen) if chosen in agents else 0
            at = min(len(agents) - 1, max(0, at + (1 if key in ("down", "j") else -1)))
            self._picture = self._picture._replace(selected=agents[at])
        elif key == "s":
            following = (*SORTS, "")
            sort = following[(following.index(self._picture.sort) + 1) % len(following)]
            self._picture = self._picture._replace(sort=sort)
            self._message = (f"sorted by {sort}" if sort else "in the order of topics.yaml", "dim")
        elif key == "x" and chosen:
            self._asked = chosen
            self._message = (f"stop agent {chosen} everywhere? y stops it, any other key does not", "yellow")
        elif key == "r" and chosen:
            self._message = await self._set(chosen, stopped=False)
        return True

    async def _answer(self, agent: str, key: str) -> None:
        self._message = await self._set(agent, stopped=True) if key == "y" else ("not stopped", "dim")

    async def _set(self, agent: str, *, stopped: bool) -> "Piece":
        """Stop or resume an agent by the command of that name, in a process of its own: this one only reads the log."""
        words = ["stop" if stopped else "resume", "agent", agent, *(("--why", "mesh top") if stopped else ()), "--json"]
        for option, value in (("--log", self._session.options.log), ("--topology", self._session.options.topology)):
            words += [] if value is None else [option, value]
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "mesh", *words),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await process.communicate()
        said = f"mesh {' '.join(words[:3])}"
        if process.returncode:
            told = [json.loads(line) for line in err.splitlines() if line.startswith(b"{")]
            error = next((one["error"] for one in told if "error" in one), {"what": "it failed", "remedy": ""})
            return (f"{said}: {error['what']}. {error['remedy']}", "red")
        changed = json.loads(out.splitlines()[0])["changed"]
        return (said if changed else f"{said}: nothing to change", "green")

    def draw(self) -> None:
        """Draw the screen: the mesh, its agents, and as many runs as fit."""
        from mesh.cli.views import top_view

        width, height = self._screen.size
        keys: list[Piece] = []
        for key, meaning in KEYS:
            keys += ["  " if keys else "", (key, "bold"), (f" {meaning}" if meaning else "", "dim")]
        footer = [[self._trouble or self._message], keys]
        snapshot = self._snapshot
        if snapshot is None:
            self._screen.draw([[(self._session.topology.name, "bold")]], footer)
            return
        states = top_view.ordered(snapshot, self._picture.sort)
        lines = [*top_view.summary(snapshot, self._session.topology.name, self._runs), []]
        first = len(lines)
        lines += top_view.table(states, self._picture, width)
        room = height - len(footer) - 2 - sum(top_view.lines_at(line, width) for line in lines)
        lines += [[], *top_view.run_lines(self._runs, snapshot.at_ms, room, width)]
        at = next((n for n, state in enumerate(states) if state.spec.name == self._picture.selected), 0)
        self._screen.draw(lines, footer, offset=max(0, first + at + 3 - (height - len(footer) - 1)))
