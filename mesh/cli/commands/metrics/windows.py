"""`mesh windows`: what the mesh did, in numbers of windows of time."""

from collections.abc import Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING, Annotated, Final

import typer

from mesh.cli.framework.completion import agents
from mesh.cli.framework.options import command, verb
from mesh.cli.framework.selectors import time_form
from mesh.cli.framework.session import Session
from mesh.core.errors import InvalidInput

if TYPE_CHECKING:
    from mesh.cli.views.window_view import WindowView
    from mesh.operations.window_reading import WindowReader

SIZES: Final = {"10s": 10_000, "1m": 60_000, "1h": 3_600_000}
ROWS_WANTED: Final = 60
"""Without --size windows are as long as gives at most so many rows, or the longest."""
app = verb()


@command(app, "windows", example="mesh windows pricing --since 10m --size 1m")
async def windows(
    session: Session,
    agent: Annotated[
        str | None, typer.Argument(metavar="AGENT", help="only this agent, window by window", autocompletion=agents)
    ] = None,
    *,
    since: Annotated[
        str, typer.Option("--since", metavar="TIME", help="from this time on: 10m, 24h, 2026-11-20T12:00Z, @MS")
    ] = "1h",
    size: Annotated[
        str | None,
        typer.Option(metavar="10s|1m|1h", autocompletion=lambda: list(SIZES), help="length of the windows of AGENT"),
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", help="go on with each window that ends, until Ctrl-C")] = False,
) -> None:
    """Show the numbers of the mesh and its agents: rates, errors, times, tokens, money.

    Without AGENT there is one row for each agent over the whole time; with AGENT one row for each window. --json has
    one line for each window and scope (the mesh, agents, types of events), with every number of
    docs/reference/metrics.md. Windows of 10 s tumble; those of 1 m begin every 10 s and those of 1 h every minute:
    --json has all of them, the table each whole minute or hour.
    """
    from mesh.cli.views.switch_view import show_alerts
    from mesh.cli.views.window_view import WindowView
    from mesh.core.metrics.windows import hopping
    from mesh.operations.alert_reading import alerts_now
    from mesh.operations.window_reading import WindowReader

    if agent is not None:
        session.require_agents([agent])
    form, length_ms = time_form("--since", since), _length(size)
    async with session.read_log() as log:
        now_ms = log.now_ms()
        reader = WindowReader(log, session.topology, form.on(now_ms))
        with session.output.status("counting the log"):
            await reader.catch_up()
        base = reader.windows()
        length_ms = length_ms or _fitting(now_ms - reader.since_ms)
        view = WindowView(session.output, session.topology, agent)
        if session.output.json:
            view.lines(hopping(base, length_ms), length_ms)
        elif agent is not None:
            view.rows(hopping(base, length_ms), length_ms)
        else:
            view.summary(base, reader.since_ms, now_ms)
        if not session.output.json:
            show_alerts(session.output, await alerts_now(log, session.topology))
        if follow:
            await _follow(reader, view)


async def _follow(reader: "WindowReader", view: "WindowView") -> None:
    view.begin_following()
    async with aclosing(reader.follow()) as coming:
        async for start, scopes in coming:
            view.follow(start, scopes)


def _length(text: str | None) -> int | None:
    if text is not None and text not in SIZES:
        raise InvalidInput(
            "windows do not have this length",
            code="bad_value",
            where="--size",
            expected=", ".join(SIZES),
            got=text[:64],
        )
    return None if text is None else SIZES[text]


def _fitting(span_ms: int) -> int:
    lengths: Sequence[int] = list(SIZES.values())
    return next((length for length in lengths if span_ms <= length * ROWS_WANTED * 1.05), lengths[-1])
