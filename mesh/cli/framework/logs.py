"""Diagnostics of a running mesh on stderr: sentences for a terminal, JSON Lines for a collector."""

import logging
import sys
from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Any

from mesh.cli.framework.output import Output
from mesh.cli.framework.text import clock, escaped_json, visible
from mesh.core.redaction import mask_value

if TYPE_CHECKING:
    from structlog.typing import EventDict

LIBRARY_LEVELS = {
    "aiokafka": logging.CRITICAL,
    "redis": logging.CRITICAL,
    "asyncio": logging.ERROR,
    "uvicorn": logging.ERROR,
}
"""The mesh reports these errors itself; the libraries would repeat them. -v shows them, -vv all that the
libraries log."""
TASK_LOGGER = "mesh.tasks"
"""The logger of failed attempts, retries, fallbacks and dead letters."""
WORKER_LOGGER = "mesh.worker"
"""The logger of a worker's assignment and its calls that are left behind."""


class Reporter:
    """Reports what a service does: a sentence on a terminal, a log line where stderr is collected."""

    def __init__(self, output: Output) -> None:
        from mesh.adapters.diagnostics import diagnostics

        self._screen = output
        self._log = diagnostics("up")

    def info(self, sentence: str, **fields: Any) -> None:
        """Report normal progress."""
        if self._screen.err_is_terminal:
            self._screen.note(sentence)
        else:
            self._log.info(sentence, **fields)

    def warning(self, sentence: str, **fields: Any) -> None:
        """Report a fault that the service recovers from."""
        if self._screen.err_is_terminal:
            self._screen.warn(("warning ", "yellow"), sentence)
        else:
            self._log.warning(sentence, **fields)


def configure(output: Output, *, service: bool = False) -> None:
    """Set the level: warnings; also progress for a service whose stderr is collected; more with -v and -vv."""
    level = logging.WARNING
    if output.verbosity < 0:
        level = logging.ERROR
    elif output.verbosity > 1:
        level = logging.DEBUG
    elif output.verbosity == 1 or (service and not output.err_is_terminal):
        level = logging.INFO
    readable = output.err_is_terminal and not output.json
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Formatter(readable))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for name, quietest in LIBRARY_LEVELS.items():
        least = (quietest, logging.WARNING, level)[min(max(output.verbosity, 0), 2)]
        logging.getLogger(name).setLevel(max(level, least))
    for name in (TASK_LOGGER, WORKER_LOGGER):
        logging.getLogger(name).setLevel(logging.NOTSET)


def hide_failed_attempts(output: Output) -> None:
    """Let this command's workers log no failed attempts unless -v asks for it: the command's output shows them."""
    if output.verbosity < 1:
        logging.getLogger(TASK_LOGGER).setLevel(logging.ERROR)


def hide_sandbox(output: Output) -> None:
    """Let the workers of a sandbox log nothing unless -v asks for it: what they do is compared and shown."""
    if output.verbosity < 1:
        for name in (TASK_LOGGER, WORKER_LOGGER):
            logging.getLogger(name).setLevel(logging.ERROR)


class _Formatter(logging.Formatter):
    """A formatter of structlog, made at the first line: most commands log nothing, and importing it is slow."""

    def __init__(self, readable: bool) -> None:
        super().__init__()
        self._readable = readable

    @cached_property
    def _made(self) -> logging.Formatter:
        from structlog import processors, stdlib

        before: list[Any] = [_fields, stdlib.add_log_level, stdlib.add_logger_name, processors.format_exc_info]
        line = _sentence if self._readable else _line(processors.JSONRenderer(default=str))
        stamp = processors.TimeStamper(fmt=None if self._readable else "iso")
        drop = stdlib.ProcessorFormatter.remove_processors_meta
        chain: list[Any] = [_origin, _mask, stamp, drop, line]
        return stdlib.ProcessorFormatter(foreign_pre_chain=before, processors=chain)

    def format(self, record: logging.LogRecord) -> str:
        """Format one record."""
        return self._made.format(record)


def _fields(logger: Any, method: str, event: "EventDict") -> "EventDict":
    record = event["_record"]
    return {**event, **getattr(record, "fields", {}), "event": getattr(record, "sentence", event["event"])}


def _origin(logger: Any, method: str, event: "EventDict") -> "EventDict":
    """Add the logger, the level, and the ids of the agent's call in which the line was logged.

    Lines that an agent logs with its own structlog come without logger and level.
    """
    from mesh.adapters.diagnostics import call_ids

    record = event["_record"]
    named = {"level": record.levelname.lower(), "logger": record.name, "event": ""}
    return {**named, **event, **{name: id for name, id in call_ids().items() if name not in event}}


def _mask(logger: Any, method: str, event: "EventDict") -> "EventDict":
    """Mask secrets. Lines of libraries and stacks pass no other redaction."""
    hidden = {name: event[name] for name in ("_record", "_from_structlog") if name in event}
    return {**mask_value("", {name: value for name, value in event.items() if name not in hidden}), **hidden}


def _sentence(logger: Any, method: str, event: "EventDict") -> str:
    """`12:01:07.114 warning orchestrator: a claim was refused  code=wrong_agent run=…`."""
    level, name, text = event.pop("level"), event.pop("logger"), str(event.pop("event"))
    at_ms, stack = int(event.pop("timestamp") * 1_000), event.pop("exception", "")
    fields = " ".join(f"{key}={value}" for key, value in event.items())
    line = visible(f"{clock(at_ms)} {level} {name.removeprefix('mesh.')}: {text}  {fields}".rstrip())
    return "\n".join([line, *(visible(row) for row in str(stack).splitlines())])


def _line(render: Callable[..., str | bytes]) -> Callable[..., str]:
    def rendered(logger: Any, method: str, event: "EventDict") -> str:
        first = ("timestamp", "level", "logger", "event")
        text = render(logger, method, {**{name: event[name] for name in first if name in event}, **event})
        return escaped_json(text if isinstance(text, str) else text.decode())

    return rendered
