"""Lines of a recording in a file: one head, one line for each record with its place, one end. Pure.

    {"recording": 1, "mesh_version": …, "mesh": …, "digest": …, "topology": {…}, "topics": {…}, "commits": {…}, …}
    {"topic": "mesh.inbox", "partition": 2, "offset": 120, "specversion": "1.0", "id": …, "data": …, "logtime": …, …}
    {"topic": "orders.placed", "partition": 0, "offset": 7, "logtime": …, "key": null, "headers": [["a", "b"]], …}
    {"end": {"records": 2, "masked": {}, "gaps": []}}

A record that holds an event of the mesh is that CloudEvent in JSON (`core.protocol.record_json`). If its attributes
do not restore each header, and for any other record, `headers` is a list of pairs in their order, which counts alone.
`data` is the payload as JSON. If the bytes of the payload differ from that JSON in its shortest form, `text` has
them and counts; bytes that are not text are in `data_base64`. Bytes of a key or of a header that are not text are in
`key_base64` and in a third item of the pair. No value: `"data": null` and `"tombstone": true`. A file without the last
line is cut. Later versions add fields; readers leave unknown ones alone.
"""

from base64 import b64decode
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from mesh.core.errors import InvalidInput, in_plain_words
from mesh.core.expression.field_path import Path
from mesh.core.protocol.codec import Unreadable, event_headers, plain_headers, read_event
from mesh.core.protocol.event import BATCH, Event, rfc3339
from mesh.core.protocol.headers import HEADERS
from mesh.core.protocol.record import Headers, PackedHeaders, Record, StoredRecord, UnreadValue, coordinates
from mesh.core.protocol.record_json import bytes_json, record_json
from mesh.core.protocol.timestamps import parse_time
from mesh.core.redaction import mask_whole
from mesh.core.secret_formats import HIDDEN
from mesh.core.topology.model import Topology
from mesh.core.topology.serialization import pinned_bytes, pinned_topology

FORMAT: Final = 1
_PLACE: Final = frozenset({"topic", "partition", "offset", "logtime", "key", "key_base64", "headers"})
_PAYLOAD: Final = frozenset({"data", "data_base64", "text", "tombstone", "unread"})
_OWN: Final = _PLACE | _PAYLOAD
_OWN_HEADERS: Final = frozenset(f"ce_{name}" for name in _OWN)
_HEADER_OF: Final = {
    name.removeprefix("ce_").replace("-", ""): name for name, _ in HEADERS if name != "content-type"
} | {"datacontenttype": "content-type"}
"""Name of an attribute in JSON → name of its header."""
_OTHERS: Final = frozenset(name for name, _ in HEADERS)
_NO_RECORDING: Final = ("this is no recording", "Export the run again")
_OTHER_FILES: Final = (
    (b"\x1f\x8b", "the file is compressed", "Unpack it (gunzip)"),
    (b"\x28\xb5\x2f\xfd", "the file is compressed", "Unpack it (unzstd)"),
    (b"\xef\xbb\xbf", "the file begins with a byte order mark", "Save it as UTF-8 without that mark"),
    (b"\xff\xfe", "the file is UTF-16", "Save it as UTF-8; some shells recode what `>` writes"),
    (b"\xfe\xff", "the file is UTF-16", "Save it as UTF-8; some shells recode what `>` writes"),
    (b"SQLite format 3", "this is an embedded log", "Name it as --log sqlite:FILE, and the run as RUN"),
)
"""Beginning of a file that is taken for a recording by mistake, what it is, and the fix."""


@dataclass(frozen=True, slots=True)
class RecordingHead:
    """The first line: what the file is, and what the log was when it was recorded."""

    mesh_version: str
    topology: Topology
    log: str
    """Address of the log, without secrets."""
    recorded_ms: int
    """Log time of the recording."""
    bounds: Mapping[str, Sequence[tuple[int, int]]]
    """Topic → first and next offset of each partition in the log."""
    commits: Mapping[str, Mapping[str, Mapping[int, tuple[int, str]]]]
    """Group → topic → partition → committed offset with metadata."""
    chosen: Mapping[str, Any] = field(default_factory=dict)
    """Options by which the runs were chosen."""
    redacted: Sequence[str] = ()
    """Paths that were asked to be masked, besides secrets."""

    def line(self) -> bytes:
        """Return the line, with its end."""
        return _line(
            {
                "recording": FORMAT,
                "mesh_version": self.mesh_version,
                "mesh": self.topology.name,
                "prefix": self.topology.prefix,
                "digest": self.topology.digest,
                "log": self.log,
                "recorded": rfc3339(self.recorded_ms),
                "chosen": self.chosen,
                "redacted": list(self.redacted),
                "topics": {topic: [list(each) for each in bounds] for topic, bounds in self.bounds.items()},
                "commits": {
                    group: {
                        topic: {str(n): list(place) for n, place in sorted(places.items())}
                        for topic, places in topics.items()
                    }
                    for group, topics in self.commits.items()
                },
                "topology": orjson.Fragment(pinned_bytes(self.topology)),
            }
        )


def read_head(line: bytes, where: str) -> RecordingHead:
    """Read the first line. `where`: the file. Raises InvalidInput if it is no recording, or one of a later format."""
    try:
        found = orjson.loads(line)
        version = found["recording"]
    except (orjson.JSONDecodeError, KeyError, TypeError) as error:
        what, remedy = next((each for start, *each in _OTHER_FILES if line.startswith(start)), _NO_RECORDING)
        raise _damaged(where, 1, what, "a file of `mesh run export`", remedy) from error
    if type(version) is not int or version != FORMAT:
        what = f"the recording has format {version!r:.20}"
        raise _damaged(where, 1, what, f"format {FORMAT}", "Read it with the version of the mesh that wrote it")
    try:
        return RecordingHead(
            mesh_version=str(found["mesh_version"]),
            topology=pinned_topology(orjson.dumps(found["topology"]), str(found["digest"])),
            log=str(found["log"]),
            recorded_ms=parse_time(found["recorded"]),
            bounds={topic: [_span(*each) for each in bounds] for topic, bounds in found["topics"].items()},
            commits={
                group: {
                    topic: {int(n): (int(offset), str(note)) for n, (offset, note) in places.items()}
                    for topic, places in topics.items()
                }
                for group, topics in found["commits"].items()
            },
            chosen=found.get("chosen", {}),
            redacted=found.get("redacted", []),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        what = f"the head cannot be read: {in_plain_words(error)}"
        raise _damaged(where, 1, what, "the head as `mesh run export` wrote it") from error


def _span(start: Any, end: Any) -> tuple[int, int]:
    """Return the bounds of a partition. Raises ValueError, TypeError."""
    if 0 <= int(start) <= int(end) < 2**63:
        return int(start), int(end)
    raise ValueError(f"[{start}, {end}] are no offsets")


def end_line(records: int, masked: Mapping[str, int], gaps: Sequence[str]) -> bytes:
    """Return the last line, which says that the file is whole. `masked`: path → number of values."""
    return _line({"end": {"records": records, "masked": dict(sorted(masked.items())), "gaps": list(gaps)}})


class Masking:
    """Masks secrets in payloads and headers, and the values at chosen paths. `counts`: path → values masked so far."""

    def __init__(self, paths: Sequence[Path] = ()) -> None:
        self._paths = paths
        self.counts: Counter[str] = Counter()

    def mask(self, record: Record) -> StoredRecord:
        """Return the record without secrets. A payload in which nothing is masked keeps its bytes."""
        headers = record.headers
        if any(name not in _OTHERS and not name.startswith(("ce_", "mesh-", "__")) for name, _ in headers):
            headers = [(name, self._header(name, value)) for name, value in headers]  # of a foreign producer
        value = record.value
        if value:
            value = self._payload(value, _type_of(record) if self._paths else "")
        return StoredRecord(record.topic, record.partition, record.offset, record.timestamp, record.key, value, headers)

    def _header(self, name: str, value: bytes) -> bytes:
        if not value or name in _OTHERS or name.startswith(("ce_", "mesh-", "__")):
            return value
        text = value.decode("utf-8", "surrogateescape")
        shown = str(mask_whole(name, text))
        if shown == text:
            return value
        self.counts[f"header {name}"] += 1
        return shown.encode("utf-8", "surrogateescape")

    def _payload(self, value: bytes, type: str) -> bytes:
        if isinstance(value, UnreadValue):
            return value
        try:
            parsed = orjson.loads(value)
        except orjson.JSONDecodeError:
            return value
        masked = mask_whole("", parsed) if isinstance(parsed, dict | list | str) else parsed
        for path in self._paths:
            if type == BATCH:
                masked = _batch_hidden(masked, path)
            elif path.type in (None, type) or not type:
                masked = _hidden(masked, path.segments)
        if masked == parsed:
            return value
        for path_text in _differences(parsed, masked, ""):
            self.counts[path_text] += 1
        return orjson.dumps(masked)


def _type_of(record: Record) -> str:
    """Return the type of an event, BATCH for several events, "" for another record."""
    event = read_event(record)
    if isinstance(event, Unreadable):
        return ""
    return BATCH if event.content_type == BATCH else event.type


def _hidden(payload: Any, segments: Sequence[str | int]) -> Any:
    """Return a payload with the value at a path hidden; as it is if the path leads nowhere."""
    if not segments:
        return HIDDEN
    step, rest = segments[0], segments[1:]
    if isinstance(step, str) and isinstance(payload, dict) and step in payload:
        return {**payload, step: _hidden(payload[step], rest)}
    if isinstance(step, int) and isinstance(payload, list) and step < len(payload):
        return [*payload[:step], _hidden(payload[step], rest), *payload[step + 1 :]]
    if isinstance(step, str) and isinstance(payload, list):
        return [_hidden(item, segments) for item in payload]  # of each item
    return payload


def _batch_hidden(items: Any, path: Path) -> Any:
    if not isinstance(items, list):
        return items
    return [
        {**item, "data": _hidden(item.get("data"), path.segments)}
        if isinstance(item, dict) and path.type in (None, item.get("type"))
        else item
        for item in items
    ]


def _differences(before: Any, after: Any, path: str) -> list[str]:
    if isinstance(before, dict) and isinstance(after, dict) and before.keys() == after.keys():
        below = [(f"{path}.{name}" if path else name, before[name], after[name]) for name in before]
        return [found for name, one, other in below for found in _differences(one, other, name)]
    if isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        pairs = zip(before, after, strict=True)
        return [found for one, other in pairs for found in _differences(one, other, f"{path}[]")]
    return [] if before == after else [path or "(whole)"]


def record_line(record: Record) -> bytes:
    """Return the line of a record, from which `read_record` restores it; packed headers come back in plain form."""
    headers = plain_headers(record.headers)
    if headers is not record.headers:
        record = StoredRecord(*_place(record), record.timestamp, record.key, record.value, headers)
    place = {"topic": record.topic, "partition": record.partition, "offset": record.offset}
    event = read_event(record)
    view: dict[str, Any] = {}
    if isinstance(event, Event):
        if event.origin == coordinates(record):  # what it gets when it is read
            event.origin = ""
        written = event_headers(event)
        view = record_json(record, event, written)
        if not isinstance(record.value, UnreadValue) and _is_plain(record, written):
            return _line({**place, **view, **_text(record.value or b"")})
    return _line(
        {
            **place,
            **{name: value for name, value in view.items() if name not in _OWN},
            "logtime": rfc3339(record.timestamp),
            **bytes_json("key", record.key),
            "headers": [_pair(name, value) for name, value in record.headers],
            **_payload_json(record.value),
        }
    )


def _place(record: Record) -> tuple[str, int, int]:
    return record.topic, record.partition, record.offset


def _is_plain(record: Record, written: Headers) -> bool:
    """Whether the attributes of an event restore all of its record. `written`: the headers that they give."""
    if _same_headers(record.headers, written):
        return _OWN_HEADERS.isdisjoint(name for name, _ in written)
    headers, own = list(written), list(record.headers)
    foreign = own[len(headers) :]
    return (
        own[: len(headers)] == headers
        and _OWN_HEADERS.isdisjoint(name for name, _ in own)
        and len(dict(foreign)) == len(foreign)
        and all(value is not None and _is_text(value) for _, value in foreign)
        and not any(name.endswith("_base64") or name in _OTHERS or name.startswith("ce_") for name, _ in foreign)
    )


def _same_headers(one: Headers, other: Headers) -> bool:
    if isinstance(one, PackedHeaders) and isinstance(other, PackedHeaders):
        return one.names == other.names and [*one.values] == [*other.values]
    return list(one) == list(other)


def _is_text(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True


def _pair(name: str, value: bytes | None) -> list[str | None]:
    shown = bytes_json("value", value)
    return [name, shown["value"]] if "value" in shown else [name, None, shown["value_base64"]]


def _payload_json(value: bytes | None) -> dict[str, Any]:
    if value is None:
        return {"data": None, "tombstone": True}
    if isinstance(value, UnreadValue):
        return {"unread": [value.code, value.message]}
    try:
        orjson.loads(value)
    except orjson.JSONDecodeError:
        return bytes_json("data", value) if not _is_text(value) else {"text": value.decode()}
    return {"data": orjson.Fragment(value.replace(b"\n", b" ").replace(b"\r", b" ")), **_text(value)}


def _text(value: bytes) -> dict[str, str]:
    """Return the exact text of JSON that is not in its shortest form."""
    try:
        same = orjson.dumps(orjson.loads(value)) == value
    except (orjson.JSONDecodeError, TypeError):
        return {}
    return {} if same else {"text": value.decode()}


def read_record(line: bytes, where: str, number: int) -> StoredRecord:
    """Restore a record from line `number` of the file `where`. Raises InvalidInput that names the line."""
    try:
        found = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise _damaged(where, number, f"the line is no JSON: {error}", "one JSON object") from error
    try:
        return _restored(found)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        what = f"the record cannot be read: {in_plain_words(error)}"
        raise _damaged(where, number, what, "a record as `mesh run export` wrote it") from error


def _restored(found: dict[str, Any]) -> StoredRecord:
    at_ms = parse_time(found["logtime"])
    key = _bytes(found, "key")
    listed = found.get("headers", {})
    headers: Headers
    if isinstance(listed, list):
        headers = [(_text_in(pair[0]), _pair_value(pair)) for pair in listed]
        return StoredRecord(found["topic"], found["partition"], found["offset"], at_ms, key, _value(found), headers)
    written = [
        (_HEADER_OF.get(name) or f"ce_{name}", str(value).encode()) for name, value in found.items() if name not in _OWN
    ]
    record = StoredRecord(found["topic"], found["partition"], found["offset"], at_ms, key, _value(found), written)
    event = read_event(record)
    if isinstance(event, Unreadable):
        raise ValueError(event.message)
    if "meshorigin" not in found:
        event.origin = ""
    return record._replace(headers=[*event_headers(event), *((name, text.encode()) for name, text in listed.items())])


def _value(found: Mapping[str, Any]) -> bytes | None:
    if found.get("tombstone"):
        return None
    if "unread" in found:
        return UnreadValue(*found["unread"])
    if "text" in found:
        return str(found["text"]).encode()
    if "data_base64" in found:
        return b64decode(found["data_base64"], validate=True)
    return orjson.dumps(found["data"])


def _text_in(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"the name of a header is no text: {value!r:.40}")
    return value


def _pair_value(pair: Sequence[str | None]) -> Any:
    if len(pair) > 2:  # name, None, base64
        return b64decode(pair[2] or "", validate=True)
    return None if pair[1] is None else pair[1].encode()


def _bytes(found: Mapping[str, Any], name: str) -> bytes | None:
    if f"{name}_base64" in found:
        return b64decode(found[f"{name}_base64"], validate=True)
    text = found[name]
    return None if text is None else str(text).encode()


def _line(found: Mapping[str, Any]) -> bytes:
    return orjson.dumps(found, option=orjson.OPT_APPEND_NEWLINE)


def _damaged(where: str, line: int, what: str, expected: str, remedy: str = "Export the run again") -> InvalidInput:
    return InvalidInput(what, code="unparseable", where=f"{where}:{line}", expected=expected, remedy=remedy)
