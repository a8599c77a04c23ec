"""Failed attempts in the log of the worker: one line each, rate-limited."""

import re
from typing import Any, Final

from mesh.adapters.diagnostics import LimitedLog, trace_field
from mesh.core.protocol.event import Event, Fault
from mesh.runtime.execution.agent_modules import user_frame

ERROR_CHARS_MAX: Final = 500
_FRAME: Final = re.compile(r'^[ |]+File "(.+)", line (\d+)', re.MULTILINE)
"""A frame in a stack; in the stack of an exception group each line begins with `|`."""
_FUNCTION: Final = frozenset({"bad_batch", "bad_result", "bad_usage", "schema", "undeclared_type"})
"""Codes of faults that the mesh finds outside a function: no line of the function raised."""
_QUIET: Final = frozenset({"later", "left_alone", "run_ended", "crash_loop"})
"""Codes that are not logged: the first two are no failures, `run_ended` has no effect on the run, and `crash_loop` is
logged where it is found."""


class FaultLog:
    """Logs failed attempts of one agent. `function`: file and line of its function, empty if not known."""

    def __init__(self, function: str = "") -> None:
        self._log, self._function = LimitedLog("tasks"), function

    def failed(self, task: Event, fault: Fault) -> None:
        """Log one failed attempt."""
        if fault.code in _QUIET:
            return
        fields: dict[str, Any] = {"agent": task.agent, "run": task.run_id, "task": task.task_id, **trace_field(task)}
        fields |= {"attempt": task.attempt, "code": fault.code, **location_of(fault, self._function)}
        fields["error"] = _error(fault)
        self._log.warning("an attempt failed", (task.agent, fault.code, fault.cls), **fields)

    def flush(self) -> None:
        """Log what was counted and not logged yet."""
        self._log.flush()


def location_of(fault: Fault, function: str = "") -> dict[str, str]:
    """Return file and line where the exception was raised, under `where`; empty if not known.

    They are the last ones of the user's own code, else the last ones outside the mesh. For a payload or a result that
    does not fit, they are those of the agent's `function`.
    """
    if fault.code in _FUNCTION and function:
        return {"where": function}
    where = user_frame((file, int(line)) for file, line in _FRAME.findall(fault.stack))
    return {"where": where} if where else {}


def _error(fault: Fault) -> str:
    name = fault.cls.removeprefix("builtins.")
    own = name.startswith("mesh.core.errors.")  # `code` says which error it is
    text = fault.message if not name or own or fault.message.startswith(name) else f"{name}: {fault.message}"
    return text if len(text) <= ERROR_CHARS_MAX else f"{text[: ERROR_CHARS_MAX - 1]}…"
