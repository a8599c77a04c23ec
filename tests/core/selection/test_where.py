"""`--where`: paths into payloads and attributes."""

from typing import Any

import pytest

from mesh.core.expression.field_path import ConditionInvalid
from mesh.core.protocol.event import BATCH, FAILED, Event, Fault, Part, Usage, encode_batch
from mesh.core.protocol.record import StoredRecord
from mesh.core.selection.where import Where, event_attributes, payloads_of, record_attributes

TYPES = ("order.placed", "fraud.scored")
ORDER = {"total": 7, "agent": "Smith", "lines": [{"sku": "a"}]}


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("total == 7", True),
        ("order.placed.total == 7", True),
        ("fraud.scored.total == 7", False),
        ('lines[0].sku == "a"', True),
        ('agent == "Smith"', True),  # the payload goes first
        ('ce.agent == "pricing"', True),
        ('order.placed.agent == "pricing"', False),
        ('run == "r1"', True),
        ('ce.run == "r1" and total > 6', True),
        ("nothing == null", True),
        ('"pricing" in path', True),
    ],
)
def test_a_path_reads_the_payload_before_the_attributes(text: str, holds: bool) -> None:
    attributes = {"agent": "pricing", "run": "r1", "path": ["intake", "pricing"]}
    assert Where(text, TYPES).holds({"order.placed": ORDER}, attributes) is holds


def test_with_several_payloads_a_path_without_a_type_reads_attributes_alone() -> None:
    payloads = {"order.placed": ORDER, "fraud.scored": {"score": 0.1}}
    assert not Where("total == 7", TYPES).holds(payloads, {})
    assert Where('order.placed.total == 7 and fraud.scored.score < 1 and agent == "x"', TYPES).holds(
        payloads, {"agent": "x"}
    )


@pytest.mark.parametrize("payload", [None, [1], "text", 3])
def test_a_payload_without_fields_leaves_the_attributes(payload: Any) -> None:
    assert Where('agent == "x" and total == null').holds({"t": payload}, {"agent": "x"})


def test_a_mistake_names_its_column() -> None:
    with pytest.raises(ConditionInvalid, match="column 7"):
        Where("total = 7")
    assert str(Where("total>7 and  not vip")) == "total > 7 and not vip"


def test_a_batch_has_a_payload_for_each_of_its_types() -> None:
    data = encode_batch([Part("a", b'{"x":1}'), Part("b", b"[2]")], source="/s", event_id="e")
    assert payloads_of("join", BATCH, data) == {"a": {"x": 1}, "b": [2]}
    assert payloads_of("join", BATCH, b"{") == {"join": None}
    assert payloads_of("a", "application/json", b"\xff") == {"a": None}


def test_the_attributes_of_an_event_and_of_its_record() -> None:
    event = Event(
        "e1",
        "/s",
        "order.placed",
        FAILED,
        "r1",
        b"{}",
        agent="pricing",
        path=("pricing",),
        usage=Usage(500_000, 3),
        fault=Fault("timeout", "too slow"),
    )
    assert event_attributes(event) == {
        "id": "e1",
        "source": "/s",
        "type": "order.placed",
        "kind": FAILED,
        "run": "r1",
        "subject": "",
        "cause": "",
        "agent": "pricing",
        "task": "",
        "depth": 0,
        "path": ["pricing"],
        "attempt": 1,
        "waited_ms": 0,
        "usd": 0.5,
        "tokens": 3,
        "code": "timeout",
        "message": "too slow",
    }
    record = StoredRecord("t", 2, 120, 1_000, b"k\xff", b"{}", [("x", b"\xff"), ("n", None)])
    assert record_attributes(record, None) == {
        "topic": "t",
        "partition": 2,
        "offset": 120,
        "time": "1970-01-01T00:00:01.000Z",
        "key": "k\\xff",
        "headers": {"x": "\\xff", "n": ""},
    }
    assert record_attributes(record, event).items() >= event_attributes(event).items()


def test_an_invalid_usage_has_no_amount() -> None:
    assert event_attributes(Event("e", "/s", "t", FAILED, "r", b"", usage=None))["usd"] is None


def test_a_condition_on_attributes_alone_needs_no_payload() -> None:
    names = ("agent", "run")
    assert Where('agent == "x" and ce.run == "y"', TYPES).reads_only(names)
    assert not Where('agent == "x" or total > 3', TYPES).reads_only(names)
    assert not Where("order.placed.agent == null", TYPES).reads_only(names)
