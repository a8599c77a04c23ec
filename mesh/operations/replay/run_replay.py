"""Read one run from a recording and fold it into steps."""

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any, Final, NamedTuple

import orjson

from mesh.adapters.clock import SystemClock
from mesh.adapters.ports import Bounds, ReadLog
from mesh.core.errors import InvalidInput, NotFound
from mesh.core.history.timeline import History
from mesh.core.protocol.record import Record
from mesh.core.publishing.effect_records import outcome_body
from mesh.core.replay.steps import TRIMMED, Gap, Step, Steps
from mesh.core.state.topology_registry import Registry
from mesh.core.topology.model import Topology
from mesh.operations.indexed_runs import indexed_runs
from mesh.operations.run_places import NO_RUN, read_places
from mesh.operations.runs import Runs
from mesh.runtime.checkpoint_store import read_checkpoints
from mesh.runtime.log_reader import read_batches
from mesh.runtime.topology_store import read_kept

NAMES_SHOWN_MAX: Final = 5


class RunReplay(NamedTuple):
    """One run of a recording, step by step."""

    history: History
    steps: list[Step]
    gaps: list[Gap]
    bounds: Bounds
    """Offsets of the run's partition in the recording."""
    records: list[Record]
    """Records that the steps were folded from, and those of all runs between them."""
    kept: Registry
    """Topologies of the recording."""
    where: str
    """The inbox it was read from."""

    @property
    def outcome(self) -> Mapping[str, Any] | None:
        """Body of the outcome; as it is decided again if it is not in the recording. None: the run has not ended."""
        run = self.history.run
        if self.history.outcome is not None or run is None or not run.ending:
            return self.history.outcome
        decided: dict[str, Any] = orjson.loads(orjson.dumps(outcome_body(run)))
        return decided

    def require_request(self) -> None:
        """Raise NotFound if the records with which the run began are not in the recording."""
        if not self.steps or any(gap.kind == TRIMMED for gap in self.gaps):
            raise NotFound(
                f"the request of run {self.history.run_id} is not in the recording",
                where=self.where,
                remedy=f"It was removed, so the run cannot begin again. `mesh replay {self.history.run_id[:12]}` shows "
                "what is left",
            )


async def replay_run(log: ReadLog, topology: Topology, name: str, *, runs: Runs | None = None) -> RunReplay:
    """Find the run called `name` as `Runs.find` does, and fold its records into steps.

    `runs`: where it is found; None: in the log alone. It keeps payloads.

    A run whose first records were removed begins with the state in a checkpoint. Raises NotFound, InvalidInput
    (`ambiguous`), LogUnavailable.
    """
    runs = runs or Runs(log, topology, payloads=True)
    history = await runs.find(name)
    kept = await read_kept(log, topology, SystemClock())
    bounds = (await log.bounds(topology.inbox))[history.partition]
    records = history.records
    if any(one.breaking for one in (topology, *kept.topologies.values())):
        records = await _with_switches(runs, history)
    steps = Steps(topology, history.run_id, partition=history.partition, kept=kept)
    if bounds.start and not _begins_with_request(records, history.run_id, history):
        await _begin_with_checkpoint(steps, log, topology, history, kept)
        records = [record for record in records if record.offset >= steps.offset]
    for record in records:
        steps.take(record)
    where = f"{log.url} {topology.inbox}:{history.partition}"
    return RunReplay(history, steps.steps, list(steps.gaps()), bounds, records, kept, where)


async def replay_each(log: ReadLog, topology: Topology) -> AsyncGenerator[RunReplay]:
    """Replay every run of a recording, in the order of their first records. Close the generator.

    The runs are indexed in memory, so that the recording is not read for each of them. Raises as `replay_run`.
    """
    async with indexed_runs(log, topology) as runs:
        for name in await recorded_runs(log, topology):
            yield await replay_run(log, topology, name, runs=runs)


async def recorded_runs(log: ReadLog, topology: Topology) -> list[str]:
    """Return the ids of all runs with a record on the inbox, in the order of their first records' times.

    Raises NotFound if there are none.
    """
    firsts: dict[bytes, int] = {}
    async with aclosing(read_batches(log, topology.inbox, await log.bounds(topology.inbox))) as batches:
        async for batch in batches:
            for record in batch:
                if record.key not in (None, NO_RUN):
                    firsts.setdefault(record.key or b"", record.timestamp)
    if not firsts:
        raise NotFound("no run of the recording has a record on the inbox", where=log.url)
    return [id.decode("utf-8", "replace") for id in sorted(firsts, key=lambda id: firsts[id])]


async def only_run(log: ReadLog, topology: Topology) -> str:
    """Return the id of the only run of a recording. Raises NotFound, and InvalidInput if there are several."""
    names = await recorded_runs(log, topology)
    if len(names) > 1:
        raise InvalidInput(
            f"the recording holds {len(names)} runs",
            code="ambiguous",
            where=log.url,
            expected="one run",
            got=", ".join(names[:NAMES_SHOWN_MAX]),
            remedy="Name one as RUN, and the file as --log recording:FILE",
        )
    return names[0]


async def _with_switches(runs: Runs, history: History) -> list[Record]:
    """Return the records of the run's partition that concern the run or all runs: those may open and close breakers."""
    keys = (history.run_id.encode(), NO_RUN)
    places = await runs.finder.places(history.run_id)
    spans = {history.partition: [*places.inbox, *places.common]}
    async with aclosing(read_places(runs.log, runs.topology.inbox, spans)) as records:
        return [record async for record in records if record.key in keys]


def _begins_with_request(records: list[Record], run_id: str, history: History) -> bool:
    """Whether the first record of a run is there: a request, and not one that came after removed ones."""
    first = next((record for record in records if record.key == run_id.encode()), None)
    opened_ms = history.opened_ms
    return first is not None and history.request is not None and opened_ms == first.timestamp


async def _begin_with_checkpoint(
    steps: Steps, log: ReadLog, topology: Topology, history: History, kept: Registry
) -> None:
    known = list({topology.digest: topology, **kept.topologies}.values())
    states = (await read_checkpoints(log, topology, SystemClock(), known, only={history.partition})).states
    if (state := states.get(history.partition)) is not None:
        steps.begin_with(state)
