"""Failed attempts in the log of the worker: one line each, limited."""

import re
from typing import Any, Final

from mesh.core.event import Event, Fault
from mesh.wire.diagnostics import LimitedLog
from mesh.wire.imports import is_own

ERROR_CHARS_MAX: Final = 500
_FRAME: Final = re.compile(r'^ +File "(.+)", line (\d+)', re.MULTILINE)
_QUIET: Final = frozenset({"later", "left_alone", "run_ended", "crash_loop"})
"""The first two are no failures, the third has no effect on the run, and `crash_loop` is logged where it is found."""


class FaultLog:
    """Logs why attempts of tasks failed."""

    def __init__(self) -> None:
        self._log = LimitedLog("tasks")

    def failed(self, task: Event, fault: Fault) -> None:
        """Log one failed attempt."""
        if fault.code in _QUIET:
            return
        fields: dict[str, Any] = {"agent": task.agent, "run": task.run_id, "task": task.task_id}
        fields |= {"attempt": task.attempt, "code": fault.code, **place_of(fault)}
        fields["error"] = _error(fault)
        self._log.warning("an attempt failed", (task.agent, fault.code, fault.cls), **fields)

    def flush(self) -> None:
        """Log what was counted and not said yet."""
        self._log.flush()


def place_of(fault: Fault) -> dict[str, str]:
    """File and line where the exception was raised, under `where`: the last one outside the mesh's own code. Empty if
    the stack names none."""
    frames = [(file, line) for file, line in _FRAME.findall(fault.stack) if not is_own(file)]
    return {"where": f"{frames[-1][0]}:{frames[-1][1]}"} if frames else {}


def _error(fault: Fault) -> str:
    name = fault.cls.removeprefix("builtins.")
    own = name.startswith("mesh.core.errors.")  # `code` says which error it is
    text = fault.message if not name or own or fault.message.startswith(name) else f"{name}: {fault.message}"
    return text if len(text) <= ERROR_CHARS_MAX else f"{text[: ERROR_CHARS_MAX - 1]}…"
