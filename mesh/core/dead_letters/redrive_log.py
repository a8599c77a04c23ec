"""The ledger of redrives: who sent which dead letter again, when, whereto, and what became of it.

One topic, `mesh.redrives`, one partition. Each step of a redrive is a record whose key names it (`<letter>:r<n>`, or
`<letter>:drop`) and whose value is the whole entry, so the last one of a key is enough and the topic may be compacted.
A redrive that died in between leaves `planned` entries. Whether its records came to be is seen on the log: they bear
the entry's key, and lie at or behind the offset that the entry names.
"""

from base64 import b64decode, b64encode
from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple

import orjson

from mesh.core.dead_letters.letter import Letter
from mesh.core.protocol.event import derive_id, rfc3339
from mesh.core.protocol.record import NewRecord, Record
from mesh.core.topology.model import Topology

PLANNED: Final = "planned"
SENT: Final = "sent"
REFUSED: Final = "refused"
DONE: Final = "done"
DROPPED: Final = "dropped"
STATES: Final[dict[str, str]] = {
    PLANNED: "about to be sent; written before anything is, with the payload where it was changed",
    SENT: "the log has taken it",
    REFUSED: "the log will not take it",
    DONE: "what became of it is known",
    DROPPED: "somebody said that it need not be sent",
}
"""Every state of an entry, with its meaning."""
LEDGER_FIELDS: Final[tuple[tuple[str, str], ...]] = (
    ("v", "1"),
    ("letter", "id of the dead letter"),
    ("n", "which redrive of it, from 1; 0 where it was dropped. `<letter>:r<n>` is the key and the id of what is sent"),
    ("state", "; ".join(f"`{state}`: {meaning}" for state, meaning in STATES.items())),
    ("by", "who, as `user@host`"),
    ("at", "when it came to this state, RFC 3339, by the clock of who did it; `at_ms` the same in milliseconds"),
    ("way", "`task`, `hop`, `topic` or `new`: the run goes on, the record goes to its topic, or a new run begins"),
    ("before", "how often what the letter holds had been redriven as other letters"),
    ("topic", "where it is sent"),
    ("partition", "where it is sent"),
    ("after", "end of that partition before anything was sent"),
    ("run_id", "the run that goes on or begins, where that is known"),
    ("place", "`topic:partition:offset` of what was sent"),
    ("data", "the payload in base64, where it is not that of the letter"),
    ("reason", "why it was forced, or dropped"),
    ("result", "ending of the run, or why it was refused"),
)
"""Every field of an entry as it is written, with its meaning; empty ones are left out."""
NEW: Final = "new"
"""State of a letter about which nothing was done."""
IN_VAIN: Final = "refused: nothing_to_redrive"
"""Result of a redrive that the run heard when its task was none of its failures any more."""
REDRIVES_MAX: Final = 3
"""Times that a record is sent again without a word why; beyond that the cause is elsewhere."""

FALLBACKS_MAX: Final = 8
"""Agents after the first one that a redriven task is followed through."""


def ledger_topic(topology: Topology) -> str:
    """Name of the ledger's topic."""
    return f"{topology.prefix}.redrives"


def successor_ids(run_id: str, key: str) -> list[str]:
    """Ids of the task that a redrive makes and of its fallbacks, as `intervene` and `failure` make them."""
    found = [derive_id(run_id, key)]
    while len(found) <= FALLBACKS_MAX:
        found.append(derive_id(run_id, found[-1], "fallback"))
    return found


class RedriveEntry(NamedTuple):
    """One redrive of one letter, as far as it has come; or that it was dropped."""

    letter: str
    """Id of the dead letter."""
    n: int
    """Which redrive of it, from 1; 0 where it was dropped."""
    state: str
    by: str
    at_ms: int
    way: str = ""
    """How it goes: see `redrive.WAYS`."""
    before: int = 0
    """How often what the letter holds had been redriven already, as other letters."""
    topic: str = ""
    partition: int = 0
    after: int = 0
    """Where that partition ended before anything was sent: what was sent lies there or behind."""
    run_id: str = ""
    """The run that goes on or begins, where that is known."""
    place: str = ""
    """Where the record lies that was sent: `topic:partition:offset`."""
    data: bytes | None = None
    """The payload that was sent, where it is not that of the letter."""
    reason: str = ""
    """Why it was forced, or dropped."""
    result: str = ""
    """What became of it: the ending of the run, or why it was refused."""

    @property
    def key(self) -> str:
        """Names the redrive, whatever its state; also the id of what is sent."""
        return f"{self.letter}:r{self.n}" if self.n else f"{self.letter}:drop"


class LetterStatus(NamedTuple):
    """Where a letter stands. `state` is NEW or that of the last entry, `n` how often it was sent."""

    state: str
    n: int
    before: int = 0
    """How often what it holds was sent before, as other letters: what is redriven and fails is a letter again."""
    last: RedriveEntry | None = None
    vain: int = 0
    """How many of `n` its run did nothing with: they do not count as tries."""

    @property
    def open(self) -> bool:
        """Whether it still waits for somebody to do something about it."""
        return self.state in (NEW, PLANNED, REFUSED)

    def __str__(self) -> str:
        if self.state == NEW:
            return f"new, redriven {self.before}× before" if self.before else NEW
        if self.last is None or self.state == DROPPED:
            return self.state
        if self.state == PLANNED:
            return f"redrive {self.n} interrupted"
        return f"redriven {self.n}×, {self.last.result or self.state}"


class RedriveLedger:
    """All entries, by letter. Give it the records in order."""

    def __init__(self, records: Iterable[Record] = ()) -> None:
        self._entries: dict[str, dict[str, RedriveEntry]] = {}
        self._heirs: dict[str, RedriveEntry] = {}
        """Tasks that a redrive made, and those that stand in for them."""
        self.unreadable = 0
        """Records that are no entries: somebody else wrote there."""
        for record in records:
            self.take(record)

    def take(self, record: Record) -> RedriveEntry | None:
        """One more record; answers its entry."""
        entry = entry_of(record)
        if entry is None:
            self.unreadable += record.value is not None
            return None
        self.add(entry)
        return entry

    def add(self, entry: RedriveEntry) -> None:
        """One more entry: the last one of a key stands, and stands last."""
        entries = self._entries.setdefault(entry.letter, {})
        if entries.pop(entry.key, None) is None and entry.run_id and entry.n:
            self._heirs.update(dict.fromkeys(successor_ids(entry.run_id, entry.key), entry))
        entries[entry.key] = entry

    def of(self, letter_id: str) -> Sequence[RedriveEntry]:
        """What was done about a letter, in the order in which it was last touched."""
        return tuple(self._entries.get(letter_id, {}).values())

    def status_of(self, letter: Letter) -> LetterStatus:
        """Where a letter stands."""
        entries, before = self.of(letter.id), max(letter.redrives, self._before(letter))
        if not entries:
            return LetterStatus(NEW, 0, before)
        vain = sum(entry.result == IN_VAIN for entry in entries)
        return LetterStatus(entries[-1].state, max(entry.n for entry in entries), before, entries[-1], vain)

    def _before(self, letter: Letter) -> int:
        """Redrives of the letter from which this one came: a task that it made failed, or what it sent was refused."""
        parent = self._heirs.get(letter.task_id)
        for name in ("ce_causationid", "ce_id"):
            key = letter.header(name)
            parent = parent or self._entries.get(key.rpartition(":r")[0], {}).get(key)
        return 0 if parent is None else parent.before + parent.n


def entry_record(entry: RedriveEntry, topology: Topology) -> NewRecord:
    """The record of an entry."""
    body: dict[str, Any] = {"v": 1, **entry._asdict(), "at": rfc3339(entry.at_ms)}
    body["data"] = None if entry.data is None else b64encode(entry.data).decode()
    kept = {name: value for name, value in body.items() if value not in ("", None)}
    return NewRecord(ledger_topic(topology), entry.key.encode(), orjson.dumps(kept), partition=0)


def entry_of(record: Record) -> RedriveEntry | None:
    """The entry in a record; None if it holds none."""
    try:
        body = orjson.loads(record.value or b"")
    except orjson.JSONDecodeError:
        return None
    if not isinstance(body, dict) or body.get("state") not in STATES or not body.get("letter"):
        return None
    fields: dict[str, Any] = {}
    for name, default in _DEFAULTS.items():
        value = body.get(name, default)
        if name != "data" and type(value) is not type(default):
            return None
        fields[name] = value
    try:
        fields["data"] = None if fields["data"] is None else b64decode(fields["data"], validate=True)
    except (ValueError, TypeError):
        return None
    return RedriveEntry(**fields)


_DEFAULTS: Final[dict[str, Any]] = {
    **dict.fromkeys(("letter", "state", "by"), ""),
    **dict.fromkeys(("n", "at_ms"), 0),
    **RedriveEntry._field_defaults,
}
