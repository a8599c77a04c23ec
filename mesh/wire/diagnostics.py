"""Diagnostics for operators: structured events on the standard library's loggers, named `mesh.…`.

A program that embeds the mesh decides with `logging` what it sees; unconfigured, that is warnings on stderr. The
command line renders them with structlog (mesh/cli). The only importer of structlog outside the command line.
"""

import logging
from typing import Any, cast

import structlog

from mesh.core.mask import masked, masked_value


def diagnostics(name: str) -> structlog.stdlib.BoundLogger:
    """A logger whose keyword arguments become fields: `log.info("partition is live", partition=3)`."""
    return cast(
        structlog.stdlib.BoundLogger,
        structlog.wrap_logger(
            logging.getLogger(f"mesh.{name}"),
            wrapper_class=structlog.stdlib.BoundLogger,
            processors=[structlog.stdlib.filter_by_level, _fields],
        ),
    )


def _fields(logger: Any, method: str, event: structlog.typing.EventDict) -> tuple[tuple[str], dict[str, Any]]:
    """As `logging` wants it: the sentence with its fields as message, the fields once more for structured handlers.
    Secrets are masked in both."""
    sentence = masked(str(event.pop("event")))
    event = masked_value("", event)
    shown = "".join(f" {key}={value}" for key, value in event.items())
    return (sentence + shown,), {"extra": {"fields": dict(event), "sentence": sentence}}
