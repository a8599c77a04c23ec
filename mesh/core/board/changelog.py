"""Changelog of the blackboard (mesh.board): every change, in the order of its report. Pure.

Changes may have happened in another order. A *version* is `incarnation:counter`. Within one incarnation of the store
the higher counter is the later change. Incarnations are ordered by their beginning, according to the records of
restarts. So the newest change of a key depends neither on the order of the records nor on repetitions nor on
wall clocks.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final, NamedTuple

import orjson

from mesh.core.board.rules import check_value, check_write
from mesh.core.errors import InvalidInput
from mesh.core.protocol.codec import Unreadable
from mesh.core.protocol.event import rfc3339
from mesh.core.protocol.record import NewRecord, Record
from mesh.core.topology.model import Topology

CHANGED: Final = "mesh.board.changed"
RESTARTED: Final = "mesh.board.restarted"
RESTARTS_MAX: Final = 100
"""Number of the latest restarts that are remembered."""

SAME: Final = "same"
NEWER: Final = "newer"
MISSING: Final = "missing"


class BoardChange(NamedTuple):
    """Write of a value, as the board acknowledged it."""

    key: str
    value: bytes
    version: str
    by: str
    op_id: str = ""
    at_ms: int = 0


class BoardRestart(NamedTuple):
    """Beginning of a new incarnation of the board, in which some earlier writes may be missing."""

    old: str
    new: str
    at_ms: int = 0
    """Time at which the restart was detected."""


class StoredValue(NamedTuple):
    """Content of the board at a key. `value` None: no value. `version`: version of the newest value or of its deletion,
    "" if the key was never written."""

    value: bytes | None
    version: str


class LoggedChange(NamedTuple):
    """A change and its offset in mesh.board."""

    change: BoardChange
    offset: int


def change_record(change: BoardChange, topology: Topology) -> NewRecord:
    """Return the record for mesh.board that reports a write."""
    headers = _headers(CHANGED, change.version, change.at_ms, topology)
    headers += [("ce_subject", change.key.encode()), ("mesh-by", change.by.encode("utf-8", "replace"))]
    if change.op_id:
        headers.append(("mesh-op", change.op_id.encode()))
    return NewRecord(topology.board, change.key.encode(), change.value, headers, 0)


def restart_record(restart: BoardRestart, topology: Topology) -> NewRecord:
    """Return the record for mesh.board that reports a restart: the same record from every process that detects it."""
    headers = _headers(RESTARTED, f"{restart.old}:{restart.new}", restart.at_ms, topology)
    body = orjson.dumps({"old": restart.old, "new": restart.new})
    return NewRecord(topology.board, None, body, headers, 0)


def read_board_record(record: Record) -> BoardChange | BoardRestart | Unreadable:
    """Read a record of mesh.board. An invalid record is returned as Unreadable."""
    headers = dict(record.headers)
    try:
        texts = {name: (headers.get(name) or b"").decode() for name in (*_ATTRIBUTES, "mesh-by", "mesh-op")}
        at_ms = round(datetime.fromisoformat(texts["ce_time"]).timestamp() * 1_000)
        key = (record.key or b"").decode()
    except ValueError as error:
        return Unreadable("bad_header", f"an attribute does not parse: {error}")
    value = record.value
    if value is None:
        return Unreadable("empty_value", "the record holds no value")
    if texts["ce_type"] == RESTARTED:
        return _restart(value, at_ms)
    if texts["ce_type"] != CHANGED:
        return Unreadable("unknown_kind", f"unknown type of board record: {texts['ce_type']!r:.80}")
    if counter_of(texts["ce_id"]) < 0:
        return Unreadable("bad_header", f"version {texts['ce_id']!r:.80} of key {key!r:.80}")
    try:
        check_write(key, texts["mesh-op"], texts["mesh-by"])
    except InvalidInput as error:
        return Unreadable(error.code, str(error))
    return BoardChange(key, value, texts["ce_id"], texts["mesh-by"], texts["mesh-op"], at_ms)


def incarnation_of(version: str) -> str:
    """Return the incarnation of the store in which a version was written."""
    return version.partition(":")[0]


def counter_of(version: str) -> int:
    """Return the counter of a version within its incarnation; -1: the version is invalid."""
    incarnation, _, digits = version.partition(":")
    return int(digits) if incarnation and digits.isascii() and digits.isdigit() and len(digits) <= 19 else -1


class BoardChangelog:
    """State of the fold of mesh.board. `values` False: it keeps versions and offsets, but no values."""

    def __init__(self, *, values: bool = True) -> None:
        self._values = values
        self._changes: dict[str, dict[str, LoggedChange]] = {}
        """Key → incarnation → the newest change of the key in that incarnation."""
        self._incarnations: dict[str, None] = {}
        self._restarts: dict[tuple[str, str], BoardRestart] = {}

    def fold(self, record: Record) -> Unreadable | None:
        """Fold one record. Returns the reason if the record is invalid, else None."""
        found = read_board_record(record)
        if isinstance(found, Unreadable):
            return found
        if isinstance(found, BoardRestart):
            self._incarnations.setdefault(found.old)
            self._incarnations.setdefault(found.new)
            self._restarts.setdefault((found.old, found.new), found)
            return None
        if self._values:
            try:
                check_value(found.key, found.value)
            except InvalidInput as error:
                return Unreadable(error.code, str(error))
        incarnation = incarnation_of(found.version)
        self._incarnations.setdefault(incarnation)
        incarnations = self._changes.setdefault(found.key, {})
        before = incarnations.get(incarnation)
        if before is None or counter_of(before.change.version) <= counter_of(found.version):
            incarnations[incarnation] = LoggedChange(
                found if self._values else found._replace(value=b""), record.offset
            )
        return None

    @property
    def restarts(self) -> list[BoardRestart]:
        """Return the restarts of the board, the earliest first; each once, however many processes detected it."""
        return list(self._restarts.values())[-RESTARTS_MAX:]

    @property
    def incarnations(self) -> list[str]:
        """Return the incarnations of the board, the earliest first.

        The order is that of their first mention, corrected by the records of restarts."""
        incarnations = list(self._incarnations)
        for old, new in self._restarts:
            if incarnations.index(old) > incarnations.index(new):
                incarnations.remove(new)
                incarnations.insert(incarnations.index(old) + 1, new)
        return incarnations

    def counter_max(self, incarnation: str) -> int:
        """Return the highest counter of the versions written in an incarnation; -1: none is known."""
        counters = (
            counter_of(incarnations[incarnation].change.version)
            for incarnations in self._changes.values()
            if incarnation in incarnations
        )
        return max(counters, default=-1)

    def newest(self) -> dict[str, LoggedChange]:
        """Return key → its newest change, sorted by key."""
        incarnations = self.incarnations
        return {
            key: max(held.values(), key=lambda one: rank(one.change.version, incarnations))
            for key, held in sorted(self._changes.items())
        }


def rank(version: str, incarnations: Sequence[str]) -> tuple[int, int]:
    """Return a sort key that orders versions by time of writing.

    An incarnation that no record reports counts as the latest, so its values count as newer than all known ones."""
    incarnation = incarnation_of(version)
    return incarnations.index(incarnation) if incarnation in incarnations else len(incarnations), counter_of(version)


def compare(change: BoardChange, stored: StoredValue, incarnations: Sequence[str]) -> str:
    """Compare the board with the newest known change of a key: `same`, `newer` (leave it unchanged) or `missing`."""
    if stored.value == change.value:
        return SAME
    if stored.version and rank(stored.version, incarnations) >= rank(change.version, incarnations):
        return NEWER
    return MISSING


_ATTRIBUTES: Final = ("ce_id", "ce_type", "ce_time")


def _headers(kind: str, id: str, at_ms: int, topology: Topology) -> list[tuple[str, bytes]]:
    return [
        ("ce_specversion", b"1.0"),
        ("ce_id", id.encode()),
        ("ce_source", f"/mesh/{topology.name}/board".encode()),
        ("ce_type", kind.encode()),
        ("ce_time", rfc3339(at_ms).encode()),
        ("content-type", b"application/json"),
    ]


def _restart(value: bytes, at_ms: int) -> BoardRestart | Unreadable:
    try:
        body = orjson.loads(value)
    except orjson.JSONDecodeError:
        body = None
    incarnations = (body.get("old"), body.get("new")) if isinstance(body, Mapping) else (None, None)
    if (
        not all(isinstance(incarnation, str) and incarnation for incarnation in incarnations)
        or incarnations[0] == incarnations[1]
    ):
        return Unreadable("unparseable", f"the value does not name two incarnations of the board: {value[:80]!r}")
    return BoardRestart(str(incarnations[0]), str(incarnations[1]), at_ms)
