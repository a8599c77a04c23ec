"""The result of an attempt that is over counts as if it were that of the current one."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from mesh.core.run import decide
from tests.sim.planted.patching import swapped


@contextmanager
def patch() -> Iterator[None]:
    """Plant it."""
    real: Any = decide._task_of

    def _task_of(run: Any, event: Any, effects: Any) -> Any:
        task = run.open.get(event.task_id)
        if task is not None and event.agent == task.agent and event.attempt < task.attempt:
            event = replace(event, attempt=task.attempt)
            if task.held is not None:
                run.state_bytes -= len(task.held.data)
                run.open[task.id] = replace(task, held=None)
        return real(run, event, effects)

    with swapped(decide, "_task_of", _task_of):
        yield
