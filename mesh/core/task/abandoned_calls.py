"""Records of mesh.endings: orchestrators name the tasks in work when a run ended, workers abandon those calls. Pure.

An answer of such a task no longer counts, even if the run is opened again, since a redrive makes new tasks. So a record
that is lost, late or repeated changes no run; it only saves the rest of the call.
"""

from collections.abc import Sequence
from typing import Final

import orjson

from mesh.core.protocol.record import NewRecord, Record
from mesh.core.run.state import Run
from mesh.core.topology.model import Topology

TASKS_A_RECORD: Final = 1_000


def ending_records(run: Run, topology: Topology) -> list[NewRecord]:
    """Return the records that name the tasks in work at the end of a run; empty if it has none."""
    if not run.open:
        return []
    ids = [task.id for task in run.open.values() if task.held is None]
    return [
        NewRecord(topology.endings, run.id.encode(), orjson.dumps({"tasks": ids[at : at + TASKS_A_RECORD]}), ())
        for at in range(0, len(ids), TASKS_A_RECORD)
    ]


def tasks_in(record: Record) -> Sequence[str]:
    """Return the task ids in a record of mesh.endings; empty if the record holds something else."""
    try:
        body = orjson.loads(record.value or b"")
    except orjson.JSONDecodeError:
        return ()
    ids = body.get("tasks") if isinstance(body, dict) else None
    return [id for id in ids if isinstance(id, str)] if isinstance(ids, list) else ()
