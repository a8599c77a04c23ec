"""Runs as commands find them: through the index of runs, which is built forward first, or else from the log alone.

The index never makes a command fail. An index that cannot be opened is left out, a damaged one is dropped and built
again, and -v reports it.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Final, TypeVar

from mesh.cli.framework.session import Session, short
from mesh.core.history.run_query import RunQuery

if TYPE_CHECKING:
    from mesh.adapters.ports import ReadLog
    from mesh.adapters.sqlite.run_index import RunIndexFile
    from mesh.core.history.run_summary import Summary
    from mesh.core.selection.where import Where
    from mesh.operations.run_index import RunIndex
    from mesh.operations.runs import Runs

T = TypeVar("T")
QUICK_RECORDS_MAX: Final = 100_000
"""Records that are indexed for a look which the log answers quickly, too."""


async def find_runs(
    session: Session,
    log: "ReadLog",
    look: "Callable[[Runs], Awaitable[T]]",
    *,
    payloads: bool = False,
) -> T:
    """Return what `look` finds through the index, or else from the log alone."""
    from mesh.operations.runs import Runs

    async def through(index: "RunIndex | None") -> T:
        return await look(Runs(log, session.topology, finder=index, payloads=payloads))

    return await _through_index(session, log, through)


async def _through_index(
    session: Session, log: "ReadLog", look: "Callable[[RunIndex | None], Awaitable[T]]", *, quick: bool = False
) -> T:
    """Return what `look` finds through the index; it gets None where there is none to use.

    `quick`: the log answers this without an index, so no long build is begun for it.
    """
    from mesh.adapters.sqlite.run_index import RunIndexUnusable

    for again in (False, True):
        async with _index(session, log) as file:
            if file is None:
                break
            try:
                index = await _caught_up(session, log, file, quick=quick)
                if index is not None:
                    return await look(index)
            except RunIndexUnusable as error:
                _note(session, f"the index of runs cannot be used: {error}")
                if error.damaged and not again and file.writable:
                    file.drop()
                    continue
            break
    return await look(None)


async def list_runs(
    session: Session, log: "ReadLog", query: RunQuery, *, limit: int, where: "Where | None"
) -> "list[Summary]":
    """Return the first runs that a query wants. Without an index to use, one is made in memory for this look.

    A listing of the latest runs, which the log answers quickly, waits for no long build.
    """
    from mesh.adapters.sqlite.run_index import MEMORY, RunIndexFile
    from mesh.operations.run_index import identity_of
    from mesh.operations.run_selection import select_runs
    from mesh.operations.runs import Runs

    quick = where is None and query == RunQuery(state=query.state, type=query.type, since_ms=query.since_ms)

    async def look(index: "RunIndex | None") -> "list[Summary]":
        runs = Runs(log, session.topology, finder=index)
        if index is not None:
            return await select_runs(runs, index, query, limit=limit, where=where)
        if quick:
            return await runs.latest(limit=limit, since_ms=query.since_ms, where=query.test(log.now_ms()))
        file = RunIndexFile(MEMORY)
        file.open(identity_of(session.topology, await log.topics()))
        try:
            made = await _caught_up(session, log, file, quick=False)
            assert made is not None  # an index in memory has one builder and no limit
            return await look(made)
        finally:
            file.close()

    return await _through_index(session, log, look, quick=quick)


@asynccontextmanager
async def _index(session: Session, log: "ReadLog") -> "AsyncIterator[RunIndexFile | None]":
    """Open the index; None where there is none to use."""
    from mesh.adapters.sqlite.run_index import RunIndexFile, RunIndexUnusable
    from mesh.app.wiring import run_index_files
    from mesh.operations.run_index import identity_of

    identity = identity_of(session.topology, await log.topics())
    opened = None
    for path in run_index_files(session.settings, session.topology):
        file = RunIndexFile(path)
        try:
            file.open(identity)
        except RunIndexUnusable as error:
            _note(session, f"no index of runs at {short(f'sqlite:{path}')}: {error}")
            file.close()
            continue
        opened = file
        break
    try:
        yield opened
    finally:
        if opened is not None:
            opened.close()


async def _caught_up(session: Session, log: "ReadLog", file: "RunIndexFile", *, quick: bool) -> "RunIndex | None":
    """Build the index forward, with progress on a terminal; None if it is left behind."""
    from mesh.operations.run_index import RunIndex

    output, index = session.output, RunIndex(log, session.topology, file)
    with ExitStack() as stack:

        def report(step: int, read: int, total: int) -> None:
            if step == read:
                stack.enter_context(output.status(""))
            output.update(f"indexing runs: {read:,} of {total:,} records; Ctrl-C keeps what is built")

        caught = await index.catch_up(report, records_max=QUICK_RECORDS_MAX if quick else None)
    if file.dropped:
        _note(session, f"the index of runs was built again, since {file.dropped}")
    return index if caught else None


def _note(session: Session, text: str) -> None:
    session.output.note(("note ", "yellow"), text, verbosity=1)
