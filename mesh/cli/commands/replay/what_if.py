"""`mesh replay --with FILE --limit WORD=VALUE`: recorded events under another topology or other limits."""

from collections.abc import Sequence

from mesh.cli.framework.run_finding import find_runs
from mesh.cli.framework.selectors import TimeSpan
from mesh.cli.framework.session import Session
from mesh.cli.views import replay_view, run_view, what_if_view
from mesh.core.topology.limit_words import read_limits, with_limits
from mesh.core.topology.model import Topology
from mesh.operations.replay.what_if_runs import Variant, what_if_run, what_if_window
from mesh.operations.verification import Window

DIFFERS = 1
UNITS = 100
"""Parts of the progress bar."""


def variant_of(path: str | None, limits: Sequence[str]) -> Variant:
    """Return what makes the other topology: that of a file, with other limits; without a file each recorded one."""
    from mesh.app.wiring import load_topology

    other = None if path is None else load_topology(path)
    fields = read_limits("--limit", limits)

    def variant(recorded: Topology) -> Topology:
        return with_limits(other or recorded, fields)

    return variant


async def what_if(session: Session, run: str | None, span: TimeSpan, variant: Variant) -> int:
    """Print one run, or the runs of a time span. Returns 1 if a run ends differently."""
    return await _window(session, span, variant) if run is None else await _one(session, run, variant)


async def _one(session: Session, name: str, variant: Variant) -> int:
    output = session.output
    async with session.read_log() as log:
        compared = await find_runs(
            session,
            log,
            lambda runs: what_if_run(log, session.topology, name, variant, runs=runs),
            payloads=True,
        )
    output.emit(what_if_view.run_json(compared))
    run_view.headline(output, compared.replay.history)
    replay_view.gap_lines(output, compared.replay.gaps)
    what_if_view.run_tree(output, compared)
    return DIFFERS if compared.found is not None and compared.found.differs else 0


async def _window(session: Session, span: TimeSpan, variant: Variant) -> int:
    output = session.output
    shown = 0
    async with session.read_log() as log:
        window = Window(*span.on(log.now_ms()))
        with output.progress(UNITS) as bar:

            def read(records: int, total: int) -> None:
                nonlocal shown
                units = UNITS * records // max(1, total)
                bar.advance(units - shown, f"{records:,} of {total:,} records")
                shown = units

            found = await what_if_window(log, session.topology, window, variant, read=read)
    output.emit(what_if_view.window_json(found))
    what_if_view.window(output, found)
    return DIFFERS if found.different else 0
