"""The traces of programs that publish, without the import of OpenTelemetry in programs that do not use it."""

import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

from mesh.core.protocol.event import Event


def traced_requests(log_url: str, requests: Sequence[Event], inbox: str) -> AbstractContextManager[None]:
    """Return spans for requests that are published in the block; none where the program has not imported the API."""
    if "opentelemetry.trace" not in sys.modules:
        return nullcontext()
    from mesh.adapters.tracing.request_spans import published

    return published(log_url, requests, inbox)
