"""The doors by which requests come in, for tests: plain JSON, CloudEvents in both modes, a request at hand."""

import json
from typing import Any

from mesh.core.ingress.admission import admit, open_request
from mesh.core.ingress.request_formats import Rejection, Request
from mesh.core.protocol.event import Event
from mesh.core.protocol.record import StoredRecord
from mesh.core.topology.model import Limits, TopicRule, Topology

BODY = b'{"order_id": "o-1", "total": 5}'
LIMIT = 4_096

ORDERS = TopicRule("orders.placed", ingress="order.placed", id="order_id", join=True)
HOOKS = TopicRule("github.webhooks", ingress="github.webhook")
TOPOLOGY = Topology(
    "desk",
    "0" * 16,
    Limits(payload_bytes_max=LIMIT),
    {},
    {rule.name: rule for rule in (ORDERS, HOOKS, TopicRule("orders.decided", egress=("order.rejected",)))},
    ingress={"order.placed": ORDERS, "github.webhook": HOOKS},
)


def record(
    headers: list[tuple[str, Any]] | None = None, value: bytes | None = BODY, topic: str = "orders.placed"
) -> StoredRecord:
    """A record of an ingress topic."""
    return StoredRecord(topic, 3, 17, 1_795_176_000_123, b"any key", value, headers or [])


def binary(body: bytes | None = BODY, /, **attributes: Any) -> StoredRecord:
    """A CloudEvent in binary mode."""
    merged = {"specversion": "1.0", "id": "o-1", "source": "/shop", "type": "order.placed", **attributes}
    return record([(f"ce_{n}", v.encode() if isinstance(v, str) else v) for n, v in merged.items()], body)


def structured(content_type: str = "application/cloudevents+json", /, **members: Any) -> StoredRecord:
    """A CloudEvent in structured mode; a member `...` is left out."""
    document = {"specversion": "1.0", "id": "o-1", "source": "/shop", "type": "order.placed", "data": json.loads(BODY)}
    document = {name: value for name, value in {**document, **members}.items() if value is not ...}
    return record([("content-type", content_type.encode())], json.dumps(document).encode())


def taken(given: StoredRecord) -> Event:
    found = admit(given, TOPOLOGY)
    assert isinstance(found, Event), found
    return found


def refused(given: StoredRecord | Request) -> Rejection:
    found = open_request(given, TOPOLOGY, fallback_id="f-1") if isinstance(given, Request) else admit(given, TOPOLOGY)
    assert isinstance(found, Rejection), found
    assert found.message.isprintable()
    assert len(found.message) < 500
    return found
