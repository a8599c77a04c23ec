"""Each record of an ingress topic becomes one request, or is rejected with a reason."""

import orjson

from mesh.adapters.clock import SystemClock
from mesh.adapters.ports import Log
from mesh.app.wiring import topic_specs
from mesh.core.ingress.admission import REJECTED_TYPE
from mesh.core.protocol.codec import Unreadable, plain_headers, read_event
from mesh.core.protocol.event import Event
from mesh.core.protocol.record import NewRecord, Record, StoredRecord, TopicPartition
from mesh.core.topology.loader import load
from mesh.runtime.topology_store import TopologyStore
from mesh.services.intake import Intake
from tests.services.conftest import append, read_all, read_until, settled, working

TEXT = """
mesh: {name: t, prefix: mesh, inbox: {partitions: 2}, limits: {payload_max: 2KB}}
topics:
  orders: {ingress: order.placed, id: order_id, partitions: 2, join: true}
  done: {egress: order.done, partitions: 1}
agents:
  ship: {run: "x:y", on: order.placed, emits: order.done}
"""
TOPOLOGY = load(TEXT)


def event(record: Record) -> Event:
    found = read_event(record)
    assert not isinstance(found, Unreadable), found
    return found


async def test_plain_json_becomes_a_request_with_the_declared_id(log: Log) -> None:
    async with working(log, TOPOLOGY, Intake(log, TOPOLOGY, SystemClock()).run):
        await append(log, NewRecord("orders", b"k", b'{"order_id": "o-1", "n": 1.50}'))
        (record,) = await read_until(log, TOPOLOGY.inbox, 1)
    request = event(record)
    assert (request.kind, request.type, request.id, request.subject) == ("requested", "order.placed", "o-1", "o-1")
    assert record.value == b'{"order_id": "o-1", "n": 1.50}'
    assert record.key == request.run_id.encode()


async def test_the_same_order_twice_asks_for_the_same_run(log: Log) -> None:
    async with working(log, TOPOLOGY, Intake(log, TOPOLOGY, SystemClock()).run):
        await append(
            log, NewRecord("orders", b"a", b'{"order_id": "o-1"}'), NewRecord("orders", b"b", b'{"order_id": "o-1"}')
        )
        first, second = [event(r) for r in await read_until(log, TOPOLOGY.inbox, 2)]
    assert (first.run_id, first.id) == (second.run_id, second.id)


async def test_cloudevents_in_both_modes_are_read(log: Log) -> None:
    attributes = {
        "specversion": "1.0",
        "id": "e-1",
        "source": "/shop",
        "type": "order.placed",
        "correlationid": "run-7",
    }
    binary = [(f"ce_{k}", v.encode()) for k, v in attributes.items()]
    structured = orjson.dumps({**attributes, "data": {"order_id": "o-1"}})
    async with working(log, TOPOLOGY, Intake(log, TOPOLOGY, SystemClock()).run):
        await append(
            log,
            NewRecord("orders", b"k", b'{"order_id": "o-1"}', binary),
            NewRecord("orders", b"k", structured, [("content-type", b"application/cloudevents+json; charset=UTF-8")]),
        )
        for request in [event(r) for r in await read_until(log, TOPOLOGY.inbox, 2)]:
            assert (request.run_id, request.id, request.source) == ("run-7", "e-1", "/shop")
            assert orjson.loads(request.data) == {"order_id": "o-1"}


async def test_what_opens_no_run_goes_to_the_dead_letters_untouched_and_blocks_nothing(log: Log) -> None:
    bad = b"\xff{not json"
    headers = [("x-any", b"\x00\x01")]
    intake = Intake(log, TOPOLOGY, SystemClock())
    async with working(log, TOPOLOGY, intake.run):
        await append(
            log,
            NewRecord("orders", b"k", bad, headers, 0),
            NewRecord("orders", b"k", None, (), 0),
            NewRecord("orders", b"k", b'{"order_id": ""}', (), 0),
            NewRecord("orders", b"k", b'{"order_id": "' + b"x" * 3_000 + b'"}', (), 0),
            NewRecord("orders", b"k", b'{"order_id": "good"}', (), 0),
        )
        (record,) = await read_until(log, TOPOLOGY.inbox, 1)
        await settled(log, "mesh.intake", "orders")
    assert event(record).id == "good"
    dead = sorted(await read_all(log, TOPOLOGY.dead), key=lambda r: dict(r.headers)["__dlq.errors.offset"])
    reasons = [dict(r.headers)["mesh-dlq-reason"] for r in dead]
    assert reasons == [b"unparseable", b"empty_value", b"bad_id", b"too_large"]
    assert (dead[0].value, dead[0].key) == (bad, b"k")
    assert ("x-any", b"\x00\x01") in [tuple(h) for h in dead[0].headers]
    assert dict(dead[0].headers)["__dlq.errors.topic"] == b"orders"
    assert intake.rejected.total() == 4


async def test_a_client_that_waits_under_a_known_run_id_gets_the_rejection(log: Log) -> None:
    attributes = {"specversion": "1.0", "id": "e", "source": "/s", "type": "order.placed", "correlationid": "run-9"}
    headers = [(f"ce_{k}", v.encode()) for k, v in attributes.items()] + [("ce_expirytime", b"tomorrow")]
    async with working(log, TOPOLOGY, Intake(log, TOPOLOGY, SystemClock()).run):
        await append(log, NewRecord("orders", b"k", b"{}", headers))
        (record,) = await read_until(log, TOPOLOGY.outcomes, 1)
    assert event(record).type == REJECTED_TYPE
    assert orjson.loads(record.value or b"")["code"] == "bad_deadline"


async def test_a_mesh_without_ingress_topics_has_a_quiet_intake(log: Log) -> None:
    bare = load("""
mesh: {name: t, prefix: mesh}
topics: {in: {ingress: a, partitions: 1}, out: {egress: b, partitions: 1}}
agents: {x: {run: "x:y", on: a, emits: b}}
""")
    quiet = type(bare)(bare.name, bare.digest, bare.limits, {}, {})
    intake = Intake(log, quiet, SystemClock())
    async with working(log, quiet, intake.run):
        await intake.ready.wait()


async def test_a_type_that_only_a_newer_topology_declares_is_admitted_under_that_one(log: Log) -> None:
    newer = load(TEXT.replace("order.placed", "order.placed.v2"))
    intake = Intake(log, TOPOLOGY, SystemClock())
    headers = [("ce_specversion", b"1.0"), ("ce_id", b"e1"), ("ce_source", b"/s"), ("ce_type", b"order.placed.v2")]
    record = StoredRecord("orders", 0, 0, 7, None, b"{}", headers)
    await log.create_topics(topic_specs(TOPOLOGY))
    await TopologyStore(log, TOPOLOGY, SystemClock()).keep()
    letter, _ = await intake.step(TopicPartition("orders", 0), [record])
    assert dict(letter.headers)["mesh-dlq-reason"] == b"unknown_type"
    await TopologyStore(log, newer, SystemClock()).keep()
    (request,) = await intake.step(TopicPartition("orders", 0), [record])
    assert request.topic == TOPOLOGY.inbox
    assert dict(plain_headers(request.headers))["ce_meshtopology"] == newer.digest.encode()
