"""Which tasks were in work when their run ended: orchestrators say it on mesh.endings, workers stop these tasks. Pure.

No answer of such a task counts any more, whatever becomes of the run: a redrive makes new tasks. So a record that is
lost, late or repeated changes no run. It spares what a function would do in vain.
"""

from collections.abc import Sequence
from typing import Final

import orjson

from mesh.core.protocol.record import NewRecord, Record
from mesh.core.run.state import Run
from mesh.core.topology.model import Topology

TASKS_A_RECORD: Final = 1_000


def ending_records(run: Run, topology: Topology) -> list[NewRecord]:
    """The records that name the tasks a run has in work at its end; none if it has none."""
    if not run.open:
        return []
    ids = [task.id for task in run.open.values() if task.held is None]
    return [
        NewRecord(topology.endings, run.id.encode(), orjson.dumps({"tasks": ids[at : at + TASKS_A_RECORD]}), ())
        for at in range(0, len(ids), TASKS_A_RECORD)
    ]


def tasks_in(record: Record) -> Sequence[str]:
    """The ids of tasks in a record of mesh.endings; none in one that holds something else."""
    try:
        body = orjson.loads(record.value or b"")
    except orjson.JSONDecodeError:
        return ()
    ids = body.get("tasks") if isinstance(body, dict) else None
    return [id for id in ids if isinstance(id, str)] if isinstance(ids, list) else ()
