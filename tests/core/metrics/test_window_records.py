"""Parts of windows survive as records; other records are no parts."""

from dataclasses import replace

from mesh.core.metrics.window_records import WindowPart, read_window, window_record
from mesh.core.metrics.windows import PartitionWindows
from mesh.core.protocol.codec import event_headers, read_event
from mesh.core.protocol.event import Event
from mesh.core.protocol.record import NewRecord, StoredRecord
from tests.core.metrics.scenario import BEGIN_MS, INBOX, MESH, scenario


def part() -> WindowPart:
    windows = PartitionWindows(MESH, INBOX)
    windows.take(scenario()[INBOX])
    return WindowPart(INBOX, BEGIN_MS, "agent:plan", windows.next_offset, windows.windows[BEGIN_MS]["agent:plan"])


def placed(record: NewRecord) -> StoredRecord:
    return StoredRecord(record.topic, 0, 0, BEGIN_MS, record.key, record.value, record.headers)


def test_a_part_survives_as_a_record() -> None:
    record = window_record(part(), MESH)
    assert (record.topic, record.key) == ("mesh.windows", b"agent:plan|%d|mesh.inbox:0" % BEGIN_MS)
    assert read_window(placed(record)) == part()


def test_other_records_are_no_parts() -> None:
    assert read_window(StoredRecord("mesh.windows", 0, 0, 0, b"k", b"{}", [])) is None
    assert read_window(StoredRecord(*INBOX, 0, 0, *scenario()[INBOX][0][4:])) is None  # type: ignore[index]
    event = read_event(placed(window_record(part(), MESH)))
    assert isinstance(event, Event)
    for data in (b"[]", b"{}", event.data.replace(b"10000", b"20000"), event.data.replace(b'"counts":{', b'"count":{')):
        odd = replace(event, data=data)
        assert read_window(placed(NewRecord("mesh.windows", b"k", data, event_headers(odd)))) is None
