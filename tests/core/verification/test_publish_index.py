"""The index of published records, by digest and position."""

import tracemalloc
from typing import Any

import orjson
import pytest

from mesh.core.protocol.record import NewRecord, StoredRecord
from mesh.core.publishing.replacement_records import replacement_of
from mesh.core.verification.publish_index import ANSWERED, MATCHED, REPLACED, PublishIndex, digest_of, mark
from tests.builders import AT_MS, topology

MESH = topology(a="ask -> out")


def at(offset: int, **fields: Any) -> StoredRecord:
    given: dict[str, Any] = {"key": b"k", "value": b"v", "headers": (("ce_id", b"x"),)}
    return StoredRecord("t", 0, offset, AT_MS + offset, **{**given, **fields})


NEW = NewRecord("t", b"k", b"v", (("ce_id", b"x"),))


def test_copies_are_one_entry_with_its_first_and_last_place() -> None:
    published = PublishIndex()
    for offset in (3, 8, 9):
        published.add(at(offset), "x", "run-1")
    (sent,) = published.find("t", "x")
    assert (sent.first, sent.last, sent.copies, sent.at_ms, sent.where) == (3, 9, 3, AT_MS + 3, "t:0:3")
    assert sent.run == mark("run-1")
    assert (published.copies, len(published)) == (2, 1)
    assert published.find("t", "y") == published.find("u", "x") == ()


@pytest.mark.parametrize(
    "other",
    [{"value": b"w"}, {"value": None}, {"key": None}, {"key": b""}, {"headers": ()}, {"headers": (("ce_id", None),)}],
)
def test_what_differs_in_any_byte_is_a_variant(other: dict[str, Any]) -> None:
    published = PublishIndex()
    published.add(at(1), "x", "")
    published.add(at(2, **other), "x", "")
    first, second = published.find("t", "x")
    assert first.digest != second.digest
    found, others = published.match(NEW, "x")
    assert found is not None
    assert (found.first, [sent.first for sent in others]) == (1, [2])
    ((kept, odd),) = published
    assert (kept.flags, odd.flags) == (MATCHED, 0)


def test_no_value_and_an_empty_value_differ() -> None:
    assert digest_of(None, None, ()) != digest_of(None, b"", ())


def test_what_is_not_there_matches_nothing() -> None:
    published = PublishIndex()
    published.add(at(1, value=b"w"), "x", "")
    found, others = published.match(NEW, "x")
    assert found is None
    assert len(others) == 1
    assert published.match(NEW, "y") == (None, ())


def test_flags_stay_on_all_variants() -> None:
    published = PublishIndex()
    published.add(at(1), "x", "")
    published.add(at(2, value=b"w"), "x", "")
    assert published.flag("t", "x", ANSWERED)
    published.match(NEW, "x")
    published.add(at(3), "x", "")
    assert [sent.flags for sent in published.find("t", "x")] == [ANSWERED | MATCHED, ANSWERED]
    assert not published.flag("t", "y", ANSWERED)


def outcome(**changes: Any) -> NewRecord:
    body = {"run": "run-1", "results": [{"type": "out", "id": "i", "agent": "a", "data": {"omitted": 1}}], **changes}
    headers = (("ce_meshkind", b"outcome"), ("ce_id", b"x"))
    return NewRecord("mesh.outcomes", b"run-1", orjson.dumps(body), headers)


def letter(**changes: bytes) -> NewRecord:
    headers = {"x": b"1", "mesh-dlq-id": b"d", "mesh-dlq-reason": b"schema", "mesh-dlq-run": b"run-1", **changes}
    return NewRecord("mesh.dead", b"k", b"v" * 9, tuple(headers.items()))


@pytest.mark.parametrize(
    ("first", "other"),
    [(outcome(), outcome(run="run-2")), (letter(), letter(**{"mesh-dlq-reason": b"exception"}))],
)
def test_what_stands_for_a_refused_record_matches_it_and_no_other(first: NewRecord, other: NewRecord) -> None:
    placed = replacement_of(first, "too_large", "at most 5 bytes", MESH)
    published = PublishIndex()
    published.add(StoredRecord(placed.topic, 0, 0, 0, placed.key, placed.value, tuple(placed.headers)), "x", "")
    assert published.find(first.topic, "x")[0].flags == REPLACED
    assert published.match(other, "x")[0] is None
    assert published.match(first, "x")[0] is not None


def test_an_agent_may_say_omitted_without_being_taken_for_that() -> None:
    assert digest_of(b"run-1", outcome().value, outcome().headers)[1] == 0
    assert digest_of(b"k", b'{"results": 7, "omitted": 1}', outcome().headers)[1] == 0
    assert digest_of(b"k", b'"omitted":', outcome().headers)[1] == 0


def test_a_record_costs_less_than_three_hundred_bytes() -> None:
    published = PublishIndex()
    tracemalloc.start()
    try:
        for n in range(20_000):
            published.add(at(n), f"{n:032x}:1", f"run-{n}")
        used, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert used / 20_000 < 300
