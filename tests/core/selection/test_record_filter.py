"""Which records are wanted."""

from dataclasses import replace

import pytest

from mesh.core.protocol.codec import Unreadable, event_headers, read_event
from mesh.core.protocol.event import TASK, Event
from mesh.core.protocol.record import StoredRecord
from mesh.core.selection.record_filter import RecordFilter
from mesh.core.selection.where import Where
from mesh.core.text_glob import glob_test

EVENT = Event("e1", "/mesh/t", "order.placed", TASK, "run-17", b'{"total":7}', agent="pricing", task_id="t1")
RECORD = StoredRecord("mesh.tasks.pricing", 0, 5, 1_000, b"run-17", EVENT.data, event_headers(EVENT))
FOREIGN = StoredRecord("theirs", 1, 9, 1_000, b"k-1", b'{"total":7}', [("app", b"x")])


@pytest.mark.parametrize(
    ("wanted", "fits"),
    [
        (RecordFilter(), True),
        (RecordFilter(run="run-17"), True),
        (RecordFilter(run="run-1"), False),
        (RecordFilter(type="order.placed", agent="pricing"), True),
        (RecordFilter(type="order"), False),
        (RecordFilter(agent="fraud"), False),
        (RecordFilter(key=glob_test("run-*")), True),
        (RecordFilter(key=glob_test("*-18")), False),
        (RecordFilter(where=Where("total > 6 and partition == 0")), True),
        (RecordFilter(where=Where('total > 6 and agent == "fraud"')), False),
    ],
)
def test_every_part_of_a_filter_must_hold(wanted: RecordFilter, fits: bool) -> None:
    assert wanted.fits(RECORD, read_event(RECORD)) is fits


@pytest.mark.parametrize(
    ("wanted", "fits"),
    [
        (RecordFilter(), True),
        (RecordFilter(run=""), False),
        (RecordFilter(type="order.placed"), False),
        (RecordFilter(agent="pricing"), False),
        (RecordFilter(key=glob_test("k-?")), True),
        (RecordFilter(where=Where('total == 7 and headers.app == "x" and offset == 9')), True),
        (RecordFilter(where=Where("total == 8")), False),
    ],
)
def test_a_record_that_holds_no_event_is_chosen_by_key_payload_and_headers(wanted: RecordFilter, fits: bool) -> None:
    found = read_event(FOREIGN)
    assert isinstance(found, Unreadable)
    assert wanted.fits(FOREIGN, found) is fits


def test_a_record_without_key_and_value_has_empty_ones() -> None:
    empty = FOREIGN._replace(key=None, value=None)
    assert RecordFilter(key=glob_test("")).fits(empty, read_event(empty))
    assert RecordFilter(where=Where("total == null and key == null")).fits(empty, read_event(empty))


def test_the_input_of_a_join_has_its_types() -> None:
    event = replace(EVENT, type="join", content_type="application/cloudevents-batch+json", data=b"[]")
    record = RECORD._replace(value=event.data, headers=event_headers(event))
    assert RecordFilter(where=Where('agent == "pricing"')).fits(record, read_event(record))
