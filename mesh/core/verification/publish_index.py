"""Index of published records, with digests and positions instead of bytes: a million records fit in memory.

    published = PublishIndex()
    for record in tasks, egress, outcomes, dead: published.add(record, id, run_id)
    published.match(expected, id)         # found as it should be, found with other bytes, or not found

An entry takes about 250 bytes. Publishing is at least once, so a record may have copies. Copies that are equal byte for
byte share an entry; a copy that differs is a *variant*, an entry of its own under the same id.
"""

from collections.abc import Iterator, Sequence
from hashlib import blake2b
from struct import Struct
from typing import Any, Final, NamedTuple

import orjson

from mesh.core.protocol.codec import plain_headers
from mesh.core.protocol.event import OUTCOME
from mesh.core.protocol.record import Headers, NewRecord, Record
from mesh.core.publishing.replacement_records import HEADERS_SHED, ID_BYTES_MAX, LISTS, lists_of

MATCHED: Final = 1
"""Flag: a record of the inbox explains it."""
ANSWERED: Final = 2
"""Flag: the answer of the task lies on the inbox."""
REPLACED: Final = 4
"""Flag: it replaces a record that the log refused (`core.publishing.replacement_records`). The digest covers the parts
that both have in common."""
_PLACE = Struct("<8s8sHHQQqIB")
_REPLACED_LETTER: Final = ("mesh-dlq-id", "mesh-dlq-reason", "mesh-dlq-run", "mesh-dlq-agent", "mesh-dlq-task")


class PublishedRecord(NamedTuple):
    """One variant of a published record. `first` and `last` are the offsets of its first and last copy."""

    digest: bytes
    run: bytes
    """`mark` of the run id."""
    topic: str
    partition: int
    first: int
    last: int
    at_ms: int
    """Log time of the first copy."""
    copies: int
    flags: int

    @property
    def where(self) -> str:
        """`topic:partition:offset` of the first copy."""
        return f"{self.topic}:{self.partition}:{self.first}"


class PublishIndex:
    """Index of published records. Records of a partition are added in offset order, partitions in any order."""

    def __init__(self) -> None:
        self._places: dict[bytes, bytes] = {}
        self._topics: list[str] = []
        self._numbers: dict[str, int] = {}
        self.copies = 0
        """Number of copies beyond the first, equal byte for byte."""

    def add(self, record: Record, id: str, run_id: str) -> None:
        """Add a record."""
        digest, flags = digest_of(record.key, record.value, record.headers)
        key = _key(record.topic, id)
        known = self._places.get(key)
        number = self._numbers.get(record.topic)
        if number is None:
            number = self._numbers[record.topic] = len(self._topics)
            self._topics.append(record.topic)
        if known is not None:
            for n, sent in enumerate(self._variants(known)):
                if sent.digest == digest and sent.partition == record.partition:
                    self.copies += 1
                    first, last = min(sent.first, record.offset), max(sent.last, record.offset)
                    at_ms = min(sent.at_ms, record.timestamp)
                    again = sent._replace(first=first, last=last, at_ms=at_ms, copies=sent.copies + 1)
                    self._places[key] = self._with(known, n, again)
                    return
        packed = _PLACE.pack(
            digest, mark(run_id), number, record.partition, record.offset, record.offset, record.timestamp, 1, flags
        )
        self._places[key] = packed if known is None else known + packed

    def find(self, topic: str, id: str) -> Sequence[PublishedRecord]:
        """Return all variants under an id."""
        return tuple(self._variants(self._places.get(_key(topic, id), b"")))

    def match(self, expected: NewRecord, id: str) -> tuple[PublishedRecord | None, Sequence[PublishedRecord]]:
        """Find the variant that equals the expected record, and flag it as explained. Return it and all others."""
        key = _key(expected.topic, id)
        known = self._places.get(key)
        if known is None:
            return None, ()
        digest, _ = digest_of(expected.key, expected.value, expected.headers)
        if len(known) == _PLACE.size and not known[-1] & REPLACED:  # nearly all: the last byte has the flags
            sent = next(self._variants(known))
            if sent.digest != digest:
                return None, (sent,)
            self._places[key] = known[:-1] + bytes((known[-1] | MATCHED,))
            return sent, ()
        found: PublishedRecord | None = None
        others = []
        for n, sent in enumerate(self._variants(known)):
            wanted = digest if not sent.flags & REPLACED else reduced_digest(expected.value, expected.headers)
            if found is None and sent.digest == wanted:
                found = sent
                self._places[key] = self._with(known, n, sent._replace(flags=sent.flags | MATCHED))
            else:
                others.append(sent)
        return found, others

    def flag(self, topic: str, id: str, flag: int) -> bool:
        """Set a flag on all variants under an id. Return False if there are none."""
        key = _key(topic, id)
        known = self._places.get(key)
        if known is None:
            return False
        if len(known) == _PLACE.size:
            self._places[key] = known[:-1] + bytes((known[-1] | flag,))
            return True
        for n, sent in enumerate(self._variants(known)):
            known = self._with(known, n, sent._replace(flags=sent.flags | flag))
        self._places[key] = known
        return True

    def __iter__(self) -> Iterator[Sequence[PublishedRecord]]:
        """Yield the variants of each id."""
        for known in self._places.values():
            yield tuple(self._variants(known))

    def __len__(self) -> int:
        return len(self._places)

    def _variants(self, known: bytes) -> Iterator[PublishedRecord]:
        for digest, run, number, *rest in _PLACE.iter_unpack(known):
            yield PublishedRecord(digest, run, self._topics[number], *rest)

    def _with(self, known: bytes, n: int, sent: PublishedRecord) -> bytes:
        digest, run, topic, *rest = sent
        packed = _PLACE.pack(digest, run, self._numbers[topic], *rest)
        return known[: n * _PLACE.size] + packed + known[(n + 1) * _PLACE.size :]


def mark(run_id: str) -> bytes:
    """Return eight bytes that identify a run id."""
    return blake2b(run_id.encode("utf-8", "replace"), digest_size=8).digest()


def digest_of(key: bytes | None, value: bytes | None, headers: Headers) -> tuple[bytes, int]:
    """Return the digest of a record, and the flag `REPLACED` if it replaces one that the log refused.

    The form of its headers does not matter: a decision made again may be written in the other one.
    """
    headers = plain_headers(headers)
    if _is_replacement(value, headers):
        return reduced_digest(value, headers), REPLACED
    hashed = blake2b(repr((key, [tuple(header) for header in headers], value is None)).encode(), digest_size=8)
    hashed.update(value or b"")
    return hashed.digest(), 0


def reduced_digest(value: bytes | None, headers: Headers) -> bytes:
    """Return the digest of the parts that a record and its replacement have in common.

    These are the ending of a run and the lengths of its lists, or the reason of a dead letter.
    """
    known = dict(headers)
    common: Any
    if "mesh-dlq-id" in known:
        ids = [known.get(name) for name in _REPLACED_LETTER]
        common = [None if id is None or len(id) > ID_BYTES_MAX else id for id in ids]
    else:
        body = orjson.loads(value or b"null")
        lengths = {name: len(listed) + body.pop(f"{name}_omitted", 0) for name, listed in lists_of(body).items()}
        for name in (*LISTS, "request", "omitted"):
            body.pop(name, None)
        lasting = sorted(header for header in known.items() if header[0] not in HEADERS_SHED)
        common = (lasting, lengths, orjson.dumps(body, option=orjson.OPT_SORT_KEYS))
    return blake2b(repr(common).encode(), digest_size=8).digest()


def _is_replacement(value: bytes | None, headers: Headers) -> bool:
    if value is None:
        return any(name == "mesh-dlq-omitted" for name, _ in headers)
    if b'"omitted":' not in value or ("ce_meshkind", OUTCOME.encode()) not in headers:
        return False
    try:
        body = orjson.loads(value)
    except orjson.JSONDecodeError:
        return False
    if not isinstance(body, dict):
        return False
    if isinstance(body.get("omitted"), str):
        return True
    results = body.get("results")  # written before lists were cut: each result has the field itself
    return isinstance(results, list) and any(isinstance(item, dict) and "omitted" in item for item in results)


def _key(topic: str, id: str) -> bytes:
    return blake2b(f"{topic}\0{id}".encode("utf-8", "replace"), digest_size=16).digest()
