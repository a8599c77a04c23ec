"""The fold of mesh.board: the newest change of each key, whatever the order of the records."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.core.board.changelog import (
    CHANGED,
    MISSING,
    NEWER,
    RESTARTED,
    RESTARTS_MAX,
    SAME,
    BoardChange,
    BoardChangelog,
    BoardRestart,
    StoredValue,
    change_record,
    compare,
    counter_of,
    rank,
    read_board_record,
    restart_record,
)
from mesh.core.protocol.codec import Unreadable
from mesh.core.protocol.record import NewRecord, StoredRecord
from tests.builders import AT_MS, topology

ECHO = topology(echo="ask -> answer")
WIPED = BoardRestart("aa", "bb", AT_MS)


def change(key: str, version: str, value: bytes = b"1") -> BoardChange:
    return BoardChange(key, value, version, "pricing/t1", "t1:1", AT_MS)


def stored(new: NewRecord, offset: int = 0) -> StoredRecord:
    return StoredRecord(new.topic, new.partition or 0, offset, AT_MS, new.key, new.value, new.headers)


def found(*told: BoardChange | BoardRestart, values: bool = True) -> BoardChangelog:
    mirror = BoardChangelog(values=values)
    for offset, one in enumerate(told):
        new = change_record(one, ECHO) if isinstance(one, BoardChange) else restart_record(one, ECHO)
        assert mirror.fold(stored(new, offset)) is None
    return mirror


def newest(mirror: BoardChangelog) -> dict[str, str]:
    return {key: held.change.version for key, held in mirror.newest().items()}


@pytest.mark.parametrize("told", [change("risk/7", "aa:7", b' {"n": 1}'), change("k", "aa:1")._replace(op_id="")])
def test_a_change_is_read_back_as_it_was_written(told: BoardChange) -> None:
    assert read_board_record(stored(change_record(told, ECHO))) == told


def test_a_restart_is_the_same_record_for_every_process() -> None:
    assert read_board_record(stored(restart_record(WIPED, ECHO))) == WIPED
    assert restart_record(WIPED, ECHO) == restart_record(BoardRestart("aa", "bb", AT_MS), ECHO)


def test_records_are_cloudevents_with_the_value_untouched() -> None:
    record = change_record(change("k", "aa:7", b" [1] "), ECHO)
    headers = dict(record.headers)
    assert (record.topic, record.key, record.value) == ("mesh.board", b"k", b" [1] ")
    assert headers["ce_type"] == CHANGED.encode()
    assert headers["ce_id"] == b"aa:7"
    assert headers["ce_subject"] == b"k"
    assert dict(restart_record(WIPED, ECHO).headers)["ce_type"] == RESTARTED.encode()


@pytest.mark.parametrize(
    ("headers", "key", "value", "code"),
    [
        ({"ce_id": b"no version"}, b"k", b"1", "bad_header"),
        ({"ce_id": "aa:²".encode()}, b"k", b"1", "bad_header"),
        ({"ce_id": b"\xff:1"}, b"k", b"1", "bad_header"),
        ({"ce_time": b"yesterday"}, b"k", b"1", "bad_header"),
        ({}, b"", b"1", "bad_key"),
        ({}, b"no key", b"1", "bad_key"),
        ({"mesh-op": b"no op"}, b"k", b"1", "bad_op_id"),
        ({"mesh-by": b"\x1b[31m"}, b"k", b"1", "bad_by"),
        ({}, b"k", b"{", "unparseable"),
        ({}, b"k", b"1" * 70_000, "too_large"),
        ({}, b"\xff", b"1", "bad_header"),
        ({}, b"k" * 257, b"1", "bad_key"),
        ({}, b"k", None, "empty_value"),
        ({"ce_type": b"mesh.board.painted"}, b"k", b"1", "unknown_kind"),
        ({"ce_type": RESTARTED.encode()}, None, b"1", "unparseable"),
        ({"ce_type": RESTARTED.encode()}, None, b"{", "unparseable"),
        ({"ce_type": RESTARTED.encode()}, None, b'{"old": "a", "new": "a"}', "unparseable"),
        ({"ce_type": RESTARTED.encode()}, None, b'{"old": "a", "new": 1}', "unparseable"),
    ],
)
def test_an_invalid_record_is_reported_and_changes_nothing(
    headers: dict[str, bytes], key: bytes | None, value: bytes | None, code: str
) -> None:
    whole = dict(change_record(change("k", "aa:1"), ECHO).headers) | headers
    mirror = BoardChangelog()
    flaw = mirror.fold(StoredRecord("mesh.board", 0, 0, AT_MS, key, value, list(whole.items())))
    assert isinstance(flaw, Unreadable)
    assert flaw.code == code
    assert (mirror.newest(), mirror.incarnations, mirror.restarts) == ({}, [], [])


def test_versions_are_compared_as_numbers() -> None:
    assert newest(found(change("k", "aa:9"), change("k", "aa:10"), change("k", "aa:2"))) == {"k": "aa:10"}
    assert [counter_of(v) for v in ("aa:10", "aa:", ":1", "aa", "aa:1:2")] == [10, -1, -1, -1, -1]


def test_the_later_incarnation_wins_though_it_counts_from_the_beginning() -> None:
    mirror = found(change("k", "aa:90"), change("old", "aa:91"), WIPED, change("k", "bb:1"))
    assert newest(mirror) == {"k": "bb:1", "old": "aa:91"}
    assert mirror.incarnations == ["aa", "bb"]


def test_a_straggler_of_an_earlier_incarnation_changes_nothing() -> None:
    assert newest(found(change("k", "aa:1"), WIPED, change("k", "bb:1"), change("k", "aa:99"))) == {"k": "bb:1"}


def test_a_restart_corrects_the_order_of_incarnations() -> None:
    mirror = found(change("k", "bb:1"), change("k", "aa:99"), WIPED, BoardRestart("bb", "cc", AT_MS))
    assert mirror.incarnations == ["aa", "bb", "cc"]
    assert newest(mirror) == {"k": "bb:1"}


def test_a_restart_that_many_noticed_is_one() -> None:
    mirror = found(WIPED, WIPED._replace(at_ms=AT_MS + 9), BoardRestart("bb", "cc"), WIPED)
    assert mirror.restarts == [WIPED, BoardRestart("bb", "cc")]
    many = found(*(BoardRestart(f"l{n}", f"l{n + 1}") for n in range(RESTARTS_MAX + 5)))
    assert many.restarts[0] == BoardRestart("l5", "l6")
    assert len(many.restarts) == RESTARTS_MAX


@given(st.permutations([("aa", n) for n in range(4)] + [("bb", n) for n in range(4)]), st.integers(0, 8))
def test_the_order_of_records_and_their_repetition_change_nothing(told: list[tuple[str, int]], again: int) -> None:
    records = [change(f"k{n % 2}", f"{incarnation}:{n}", b"%d" % n) for incarnation, n in told]
    mirror = found(*records, WIPED, *records[:again])
    assert newest(mirror) == {"k0": "bb:2", "k1": "bb:3"}
    assert mirror.newest()["k1"].change.value == b"3"


def test_a_repetition_counts_where_it_lies_last_so_that_the_first_may_go() -> None:
    assert found(change("k", "aa:1"), change("k", "aa:1")).newest()["k"].offset == 1


def test_without_values_it_knows_what_lies_where() -> None:
    held = found(change("b", "aa:1", b"[1]"), change("a", "aa:2", b"[2]"), values=False).newest()
    assert {key: (one.offset, one.change.value) for key, one in held.items()} == {"a": (1, b""), "b": (0, b"")}
    assert list(held) == ["a", "b"]


@pytest.mark.parametrize(
    ("stored", "verdict"),
    [
        (StoredValue(None, ""), MISSING),
        (StoredValue(b"7", "aa:3"), SAME),
        (StoredValue(b"7", "bb:9"), SAME),
        (StoredValue(b"5", "aa:2"), MISSING),
        (StoredValue(b"9", "aa:4"), NEWER),
        (StoredValue(b"9", "bb:1"), NEWER),
        (StoredValue(b"9", "unheard:1"), NEWER),
        (StoredValue(None, "aa:2"), MISSING),
        (StoredValue(None, "aa:4"), NEWER),
        (StoredValue(b"8", "aa:3"), NEWER),
    ],
)
def test_nothing_newer_than_what_is_known_counts_as_missing(stored: StoredValue, verdict: str) -> None:
    assert compare(change("k", "aa:3", b"7"), stored, ["aa", "bb"]) == verdict


def test_an_incarnation_without_a_record_is_the_latest() -> None:
    assert rank("zz:1", ["aa", "bb"]) > rank("bb:99", ["aa", "bb"]) > rank("aa:100", ["aa", "bb"])
