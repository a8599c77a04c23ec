"""`mesh replay RUN --step`: one step at a time on the terminal, forwards and back. In a pipe it prints all."""

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from mesh.cli.commands.replay.print_steps import print_replay, read_replay
from mesh.cli.commands.replay.walk import KEYS, Walk
from mesh.cli.framework import selectors
from mesh.cli.framework.failure import INTERRUPTED
from mesh.cli.framework.output import Piece
from mesh.cli.framework.session import Session
from mesh.cli.framework.text import visible
from mesh.cli.views import replay_view
from mesh.cli.views.run_view import id_of, state
from mesh.core.replay.steps import Step
from mesh.core.run.circuit_breaker import NO_BREAKERS
from mesh.core.selection.where import payloads_of
from mesh.operations.replay.run_replay import RunReplay, only_run

if TYPE_CHECKING:
    from mesh.cli.framework.screen import Screen


async def step_through(session: Session, name: str | None, condition: str | None) -> int:
    """Walk through the steps of the run called `name`; None: of the only run of a recording. `condition`: where to
    stop."""
    breaks = _breaks(session, condition)
    async with session.read_log() as log:
        found = await read_replay(session, log, name or await only_run(log, session.topology))
    if not found.steps or not session.output.interactive or not sys.stdin.isatty():
        print_replay(session, found, breaks)
        return 0
    from mesh.cli.framework.keys import END, INTERRUPT, Keys

    walk = Walk(found.steps, breaks, payload=session.output.verbosity > 0)
    if condition is not None and not walk.stops:
        walk.message = f"no step fits --break {condition}"
    with session.output.screen() as screen, Keys() as keys:
        _draw(screen, found, walk)
        while (key := await keys.read()) not in (END, INTERRUPT) and walk.press(key):
            _draw(screen, found, walk)
    return INTERRUPTED if key == INTERRUPT else 0


def _breaks(session: Session, condition: str | None) -> Callable[[Step], bool] | None:
    where = selectors.where(condition, session.topology, "--break")
    if where is None:
        return None

    def holds(step: Step) -> bool:
        event = step.event
        payloads = {} if event is None else payloads_of(event.type, event.content_type, event.data)
        return where.holds(payloads, step.fields())

    return holds


def _draw(screen: "Screen", found: RunReplay, walk: Walk) -> None:
    history, n = found.history, walk.position
    head: list[list[Piece]] = [
        [(history.subject or history.run_id, "bold"), f"  {history.type}  ", state(history.state)]
    ]
    head += [[("  ", ""), (f"{gap.kind} ", "yellow"), (visible(gap.text), "dim")] for gap in found.gaps if not gap.step]
    before_ms = walk.steps[n - 1].at_ms if n else walk.step.at_ms
    breakers = walk.steps[n - 1].breakers if n else NO_BREAKERS
    lines = list(replay_view.step_lines(walk.step, before_ms, payload=walk.payload, breakers=breakers))
    if screen.is_short:
        walk.scroll = screen.draw(lines, _short_footer(walk), offset=walk.scroll)
    else:
        walk.scroll = screen.draw([*head, [], *lines], _footer(found, walk), offset=walk.scroll)


def _short_footer(walk: Walk) -> list[list[Piece]]:
    """One line: what is typed, what a key could not do, or the place and the main keys."""
    line = _said(walk) or [(f"{walk.position + 1} of {len(walk.steps)} · → next · ← back · ↓ scroll · q quit", "cyan")]
    return [line]


def _said(walk: Walk) -> list[Piece]:
    if walk.prompt is not None:
        return [(f"{walk.prompt}: ", "bold"), walk.typed, ("█", "dim")]
    return [(walk.message, "yellow")] if walk.message else []


def _footer(found: RunReplay, walk: Walk) -> list[list[Piece]]:
    at = f"step {walk.position + 1} of {len(walk.steps)} · {walk.step.where} · run {id_of(found.history.run_id)}"
    if walk.position in walk.stops:
        at += f" · break {walk.stops.index(walk.position) + 1} of {len(walk.stops)}"
    keys: list[Piece] = []
    for key, meaning in KEYS:
        keys += [(key, "bold"), (f" {meaning}  ", "dim")]
    return [_said(walk), [(at, "cyan")], keys]
