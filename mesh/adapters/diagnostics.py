"""Diagnostics for operators: structured events on the standard library's loggers, named `mesh.…`.

A program that embeds the mesh configures `logging` to its needs. By default, warnings go to stderr. The command line
renders events with structlog (mesh/cli). This is the only importer of structlog outside the command line.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from contextvars import Context, ContextVar, copy_context
from typing import Any, Final, cast

import structlog

from mesh.core.protocol.event import FAILED, REQUESTED, SUCCEEDED, TASK, Event
from mesh.core.redaction import mask, mask_value

LINES_MAX: Final = 5
WINDOW_S: Final = 10.0

_RUN: ContextVar[str] = ContextVar("structlog_run")
_TASK: ContextVar[str] = ContextVar("structlog_task")
_AGENT: ContextVar[str] = ContextVar("structlog_agent")
_TRACE: ContextVar[str] = ContextVar("structlog_trace")
_CARRIERS: Final = frozenset({REQUESTED, TASK, SUCCEEDED, FAILED})
"""Kinds of events that carry the trace of their run, if it came with one."""
_IDS: Final = (("run", _RUN), ("task", _TASK), ("agent", _AGENT), ("trace", _TRACE))
"""Ids of the agent's call in this context. The variables have the names that structlog's `merge_contextvars` reads,
which is part of its default configuration."""


def diagnostics(name: str) -> structlog.stdlib.BoundLogger:
    """Return a logger whose keyword arguments become fields: `log.info("partition is live", partition=3)`."""
    return cast(
        structlog.stdlib.BoundLogger,
        structlog.wrap_logger(
            logging.getLogger(f"mesh.{name}"),
            wrapper_class=structlog.stdlib.BoundLogger,
            processors=[structlog.stdlib.filter_by_level, _fields],
        ),
    )


class Traces:
    """The trace ids of this process's log lines."""

    id_of_run: Callable[[str], str] | None = None
    """Returns the trace id of a run whose request had none; None: no spans are exported, so that there is none."""


def trace_of(event: Event) -> str:
    """Return the trace id of an event of a run; "" if it is not known."""
    if event.traceparent:
        return event.traceparent[3:35]
    return Traces.id_of_run(event.run_id) if Traces.id_of_run is not None and event.kind in _CARRIERS else ""


def trace_field(event: Event) -> Mapping[str, str]:
    """Return the field `trace` of a log line about an event; none if the trace is not known."""
    found = trace_of(event)
    return {"trace": found} if found else {}


def enter_call(run: str, task: str, agent: str, trace: str = "") -> None:
    """Add these ids to all further lines that are logged in the current context."""
    _RUN.set(run)
    _TASK.set(task)
    if _TRACE.get("") != trace:
        _TRACE.set(trace)
    if _AGENT.get("") != agent:  # a read is cheaper than a write
        _AGENT.set(agent)


def agent_context(agent: str) -> Context:
    """Return a copy of the current context in which every logged line has this agent's name."""
    made = copy_context()
    made.run(_AGENT.set, agent)
    return made


def call_ids() -> Mapping[str, str]:
    """Return the ids of the call in the current context; empty outside of calls."""
    return {name: found for name, variable in _IDS if (found := variable.get(""))}


class LimitedLog:
    """A log for frequent warnings: at most LINES_MAX of one kind are logged in WINDOW_S seconds.

    Further ones are counted, and logged as one line when the window ends, or on `flush`. Use it inside an event loop.
    """

    def __init__(self, name: str) -> None:
        self._log, self._logger = diagnostics(name), logging.getLogger(f"mesh.{name}")
        self._windows: dict[tuple[str, ...], _Window] = {}

    def warning(self, sentence: str, kind: tuple[str, ...], **fields: Any) -> None:
        """Log a line, or count it. Lines with the same sentence and `kind` are of one kind."""
        if not self._logger.isEnabledFor(logging.WARNING):
            return
        loop = asyncio.get_running_loop()
        kind = (sentence, *kind)
        window = self._windows.get(kind)
        if window is None or loop.time() >= window.end_s:
            if window is not None:
                self._end(kind, window)
            window = self._windows[kind] = _Window(loop.time() + WINDOW_S)
        window.lines += 1
        if window.lines <= LINES_MAX:
            self._log.warning(sentence, **fields)
            return
        window.fields = fields
        if window.timer is None:
            window.timer = loop.call_at(window.end_s, self._end, kind, window)

    def flush(self) -> None:
        """Log the counts of suppressed lines."""
        for kind, window in list(self._windows.items()):
            self._end(kind, window)

    def _end(self, kind: tuple[str, ...], window: "_Window") -> None:
        if self._windows.get(kind) is window:
            del self._windows[kind]
        if window.timer is not None:
            window.timer.cancel()
        more, window.lines = window.lines - LINES_MAX, 0
        if more > 0:
            same = {name: window.fields[name] for name in ("agent", "code") if name in window.fields}
            self._log.warning(f"{kind[0]}: … and {more:,} more of the same in {WINDOW_S:g} s", count=more, **same)


class _Window:
    """A window of lines of one kind. `fields`: of the last line that was counted only."""

    __slots__ = ("end_s", "fields", "lines", "timer")

    def __init__(self, end_s: float) -> None:
        self.end_s = end_s
        self.lines = 0
        self.fields: dict[str, Any] = {}
        self.timer: asyncio.TimerHandle | None = None


def _fields(logger: Any, method: str, event: structlog.typing.EventDict) -> tuple[tuple[str], dict[str, Any]]:
    """Return the arguments for `logging`: a message with all fields, and the fields again for structured handlers.

    Secrets are masked in both.
    """
    sentence = mask(str(event.pop("event")))
    event = mask_value("", event)
    shown = "".join(f" {key}={value}" for key, value in event.items())
    return (sentence + shown,), {"extra": {"fields": dict(event), "sentence": sentence}}
