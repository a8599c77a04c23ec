"""A collector of telemetry that takes whatever comes, by OTLP over HTTP, and reads the spans in it."""

import gzip
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any, NamedTuple

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

DEADLINE_S = 60.0


class ReceivedSpan(NamedTuple):
    """A span as it came over the wire."""

    service: str
    name: str
    kind: int
    trace_id: str
    span_id: str
    parent_id: str
    began_ns: int
    ended_ns: int
    attributes: dict[str, Any]
    links: tuple[tuple[str, str, dict[str, Any]], ...]
    """Trace id, span id and attributes of each link."""
    is_error: bool
    message: str


@contextmanager
def collector() -> Iterator[tuple[str, list[tuple[str, int]]]]:
    """An address that takes OTLP, and what came: paths with the sizes of what was sent there."""
    received: list[tuple[str, int]] = []
    with _serving(lambda path, body: received.append((path, len(body)))) as address:
        yield address, received


class SpanCollector:
    """The spans that came so far, in the order of arrival."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.spans: list[ReceivedSpan] = []
        self._changed = threading.Condition()

    def take(self, body: bytes) -> None:
        """Read an export request."""
        with self._changed:
            self.spans += read_spans(body)
            self._changed.notify_all()

    def until(self, holds: Callable[[list[ReceivedSpan]], bool]) -> list[ReceivedSpan]:
        """Return the spans so far, once the condition is true for them."""
        deadline = time.monotonic() + DEADLINE_S
        with self._changed:
            while not holds(self.spans):
                left = deadline - time.monotonic()
                shown = "\n".join(f"{span.service} {span.name}" for span in self.spans)
                assert left > 0, f"the spans did not come; so far:\n{shown}"
                self._changed.wait(left)
            return list(self.spans)

    @property
    def environ(self) -> dict[str, str]:
        """The variables by which a process exports to this collector at once."""
        return {"OTEL_EXPORTER_OTLP_ENDPOINT": self.address, "OTEL_BSP_SCHEDULE_DELAY": "50"}


@contextmanager
def span_collector() -> Iterator[SpanCollector]:
    """A collector that reads spans."""
    made = SpanCollector("")
    with _serving(lambda path, body: made.take(body)) as made.address:
        yield made


def read_spans(body: bytes) -> list[ReceivedSpan]:
    """Return the spans of an export request."""
    request = ExportTraceServiceRequest.FromString(body)
    found = []
    for resource in request.resource_spans:
        service = _values(resource.resource.attributes)["service.name"]
        for scope in resource.scope_spans:
            for span in scope.spans:
                links = tuple((x.trace_id.hex(), x.span_id.hex(), _values(x.attributes)) for x in span.links)
                ids = (span.trace_id.hex(), span.span_id.hex(), span.parent_span_id.hex())
                times, about = (span.start_time_unix_nano, span.end_time_unix_nano), _values(span.attributes)
                error = span.status.code == 2
                made = ReceivedSpan(
                    service, span.name, span.kind, *ids, *times, about, links, error, span.status.message
                )
                found.append(made)
    return found


def _values(pairs: Any) -> dict[str, Any]:
    return {pair.key: getattr(pair.value, str(pair.value.WhichOneof("value"))) for pair in pairs}


@contextmanager
def _serving(take: Callable[[str, bytes], None]) -> Iterator[str]:
    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            take(self.path, gzip.decompress(body) if self.headers.get("content-encoding") == "gzip" else body)
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Collector) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()
