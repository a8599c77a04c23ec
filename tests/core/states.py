"""In which state of the tables a run or a task is."""

from mesh.core.protocol.event import derive_id
from mesh.core.run.state import Run


def run_state(run: Run | None) -> str:
    """A state of RUN_STATES."""
    if run is None:
        return "(none)"
    return run.ending or ("paused" if run.trouble.paused else "open")


def task_state(run: Run | None, id: str) -> str:
    """A state of TASK_STATES of a task that was dispatched."""
    if run is None:
        return "(none)"
    task = run.open.get(id)
    if task is None and derive_id(run.id, id, "fallback") in run.open:
        return "replaced"
    if task is None:
        return "dead" if any(failure.task_id == id for failure in run.failures) else "done"
    if run.ending:
        return "dropped"
    return "waiting" if task.held else "open"
