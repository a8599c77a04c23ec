"""`order: key` of an ingress topic: the home in the run id."""

import pytest

from mesh.core.errors import TopologyInvalid
from mesh.core.ingress.admission import admit, open_request
from mesh.core.ingress.request_formats import Rejection, Request
from mesh.core.protocol.event import Event
from mesh.core.protocol.partitioner import home_of, partition_of
from mesh.core.protocol.record import StoredRecord
from mesh.core.topology.loader import load
from mesh.core.topology.model import Topology

TEXT = """
mesh: {name: moves}
topics:
  moves: {ingress: moved, order: key, id: id, FIELD partitions: 3}
  others: {ingress: other}
agents:
  book: {run: "no.such:function", on: [moved, other], key: customer}
"""
BY_FIELD = load(TEXT.replace("FIELD", "key: customer,"))
BY_RECORD = load(TEXT.replace("FIELD", ""))


def run_of(topology: Topology, key: bytes | None, body: bytes, **headers: str) -> str:
    """The run of a record on the ordered topic."""
    pairs = [(f"ce_{name}", value.encode()) for name, value in headers.items()]
    found = admit(StoredRecord("moves", 1, 7, 0, key, body, pairs), topology)
    assert isinstance(found, Event), found
    return found.run_id


def home(run_id: str) -> str:
    found = home_of(run_id.encode()).decode()
    return "" if found == run_id else found


def test_records_of_one_key_have_one_home_and_ids_of_their_own() -> None:
    ids = [run_of(BY_RECORD, b"c-7", b'{"id":"%d"}' % n) for n in range(20)]
    assert len(set(ids)) == 20
    assert len({home(id) for id in ids}) == 1
    assert len({partition_of(id.encode(), 24) for id in ids}) == 1
    assert home(ids[0])
    assert home(ids[0]) != home(run_of(BY_RECORD, b"c-8", b'{"id":"1"}'))
    assert ids[3] == run_of(BY_RECORD, b"c-7", b'{"id":"3"}'), "the same record is the same run"


def test_an_event_id_is_unique_for_each_ordering_key() -> None:
    one, other = (run_of(BY_RECORD, key, b'{"id":"1"}') for key in (b"c-7", b"c-8"))
    assert one != other
    assert one.partition(":")[0] == other.partition(":")[0], "only the home differs"


def test_the_declared_field_counts_and_not_the_key_of_the_record() -> None:
    one, other = (run_of(BY_FIELD, key, b'{"id":"1","customer":"c-7"}') for key in (b"a", b"b"))
    assert one == other
    assert home(one) == home(run_of(BY_RECORD, b"c-7", b'{"id":"1"}')), "a text is the key as it is"
    assert home(run_of(BY_FIELD, None, b'{"id":"1","customer":7}')) == home(run_of(BY_RECORD, b"7", b'{"id":"1"}'))


def test_numbers_are_keys_as_json_writes_them() -> None:
    one, text, real, power = (
        home(run_of(BY_FIELD, None, b'{"id":"1","customer":%s}' % field)) for field in (b"1", b'"1"', b"1.0", b"1e0")
    )
    assert (one, real) == (text, power)
    assert one != real


@pytest.mark.parametrize(
    ("topology", "key", "body"),
    [
        (BY_RECORD, None, b'{"id":"1"}'),
        (BY_FIELD, b"c-7", b'{"id":"1"}'),
        (BY_FIELD, None, b'{"id":"1","customer":null}'),
        (BY_FIELD, None, b'{"id":"1","customer":["c-7"]}'),
        (BY_FIELD, None, b'{"id":"1","customer":{"id":"c-7"}}'),
    ],
)
def test_without_the_ordering_key_a_run_has_no_home(topology: Topology, key: bytes | None, body: bytes) -> None:
    assert not home(run_of(topology, key, body))


def test_a_topic_that_says_nothing_of_order_gives_no_home() -> None:
    found = admit(StoredRecord("others", 0, 7, 0, b"c-7", b"{}", []), BY_RECORD)
    assert isinstance(found, Event)
    assert not home(found.run_id)


def test_a_record_cannot_claim_the_home_of_another_key() -> None:
    victim = run_of(BY_RECORD, b"c-7", b'{"id":"1"}')
    record = StoredRecord("moves", 1, 7, 0, b"c-8", b'{"id":"2"}', [("ce_correlationid", victim.encode())])
    found = admit(record, BY_RECORD)
    assert isinstance(found, Rejection)
    assert found.code == "foreign_run"


def test_a_client_that_waits_for_a_rejected_request_is_answered_if_its_run_is_known() -> None:
    def rejected(topology: Topology) -> str:
        request = Request("moved", b"{broken", id="1", source="/shop", topic="moves", key=b"c-7")
        found = open_request(request, topology, fallback_id="f")
        assert isinstance(found, Rejection)
        return found.run_id

    asked = run_of(BY_RECORD, b"c-7", b"{}", specversion="1.0", id="1", source="/shop", type="moved")
    assert rejected(BY_RECORD) == asked
    assert rejected(BY_FIELD) == "", "the payload would have to be read"


@pytest.mark.parametrize(
    ("old", "new", "what"),
    [
        ("order: key", "order: yes", "unknown order"),
        ("ingress: moved, order: key, id: id,", "egress: moved, order: key,", "only records of an ingress topic"),
        ("key: customer}", "lanes: 2}", "topics.moves.order: no agent that subscribes to moved has a `key`"),
    ],
)
def test_an_order_that_nothing_keeps_is_refused(old: str, new: str, what: str) -> None:
    with pytest.raises(TopologyInvalid) as refused:
        load(TEXT.replace("FIELD", "").replace(old, new))
    assert what in str(refused.value)
