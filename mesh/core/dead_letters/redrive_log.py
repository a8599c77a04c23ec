"""The ledger of redrives: author, time, destination and result of each redrive of a dead letter.

It is the topic `mesh.redrives` with one partition. Each step of a redrive is a record. Its key names the redrive
(`<letter>:r<n>`, or `<letter>:drop`), its value is the whole entry: the last record of a key is enough, and the topic
may be compacted. An interrupted redrive leaves `planned` entries. The log shows whether its records were written: they
carry the entry's key, at or after the offset in the entry.
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
    SENT: "the log has accepted it",
    REFUSED: "the log refused it",
    DONE: "its result is known",
    DROPPED: "discarded with `mesh dead drop`: it is not to be sent",
}
"""State of an entry → its meaning."""
LEDGER_FIELDS: Final[tuple[tuple[str, str], ...]] = (
    ("v", "1"),
    ("letter", "id of the dead letter, or of the recorded request that is sent again"),
    ("n", "which redrive of it, from 1; 0 where it was dropped. `<letter>:r<n>` is the key and the id of what is sent"),
    ("state", "; ".join(f"`{state}`: {meaning}" for state, meaning in STATES.items())),
    ("by", "who, as `user@host`"),
    ("at", "when it came to this state, RFC 3339, by the clock of who did it; `at_ms` the same in milliseconds"),
    ("way", "`task`, `hop`: the run goes on; `topic`: the record goes to its topic; `new`, `resend`: a new run begins"),
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
"""Fields of an entry as it is written, with their meaning; empty ones are left out."""
NEW: Final = "new"
"""State of a letter that was neither redriven nor dropped."""
NOTHING_TO_REDRIVE: Final = "refused: nothing_to_redrive"
"""Result of a redrive that the run consumed when its task was no longer one of its failures."""
REDRIVES_MAX: Final = 3
"""Redrives of a record without `--force`; after more of them the cause is elsewhere."""
FALLBACKS_MAX: Final = 8
"""Limit of fallback agents through which a redriven task is followed."""


def ledger_topic(topology: Topology) -> str:
    """Return the name of the ledger's topic."""
    return f"{topology.prefix}.redrives"


def successor_ids(run_id: str, key: str) -> list[str]:
    """Return the ids of the task that a redrive creates and of its fallbacks, as `run.operator` and `run.retry` do."""
    found = [derive_id(run_id, key)]
    while len(found) <= FALLBACKS_MAX:
        found.append(derive_id(run_id, found[-1], "fallback"))
    return found


class RedriveEntry(NamedTuple):
    """One redrive of one letter with its state; or the drop of a letter."""

    letter: str
    """Id of the dead letter."""
    n: int
    """Which redrive of it, from 1; 0 where it was dropped."""
    state: str
    by: str
    at_ms: int
    way: str = ""
    """One of `redrive_plan.WAYS`."""
    before: int = 0
    """Earlier redrives of the letter's content, as other letters."""
    topic: str = ""
    partition: int = 0
    after: int = 0
    """End of that partition before anything was sent: the sent records lie there or after."""
    run_id: str = ""
    """The run that goes on or begins, if known."""
    place: str = ""
    """Position of the sent record: `topic:partition:offset`."""
    data: bytes | None = None
    """The payload that was sent, if it is not that of the letter."""
    reason: str = ""
    """Reason for a forced redrive or for a drop."""
    result: str = ""
    """Ending of the run, or the reason of a refusal."""

    @property
    def key(self) -> str:
        """Name of the redrive in every state; also the id of the sent event."""
        return f"{self.letter}:r{self.n}" if self.n else f"{self.letter}:drop"


class LetterStatus(NamedTuple):
    """State of a letter: NEW or that of its last entry. `n`: number of its redrives."""

    state: str
    n: int
    before: int = 0
    """Earlier redrives of its content, as other letters: a redriven task that fails becomes a new letter."""
    last: RedriveEntry | None = None
    without_effect: int = 0
    """Redrives among `n` that its run ignored; they do not count as tries."""

    @property
    def open(self) -> bool:
        """Whether it still waits for a redrive or a drop."""
        return self.state in (NEW, PLANNED, REFUSED)

    @property
    def begins_run(self) -> bool:
        """Whether an interrupted redrive begins a new run."""
        return self.state == PLANNED and self.last is not None and self.last.way == "new"

    def __str__(self) -> str:
        if self.state == NEW:
            return f"new, redriven {self.before}× before" if self.before else NEW
        if self.last is None or self.state == DROPPED:
            return self.state
        if self.state == PLANNED:
            return f"redrive {self.n} interrupted"
        return f"redriven {self.n}×, {self.last.result or self.state}"


class RedriveLedger:
    """All entries, by letter. Takes the records in order."""

    def __init__(self, records: Iterable[Record] = ()) -> None:
        self._entries: dict[str, dict[str, RedriveEntry]] = {}
        self._successors: dict[str, RedriveEntry] = {}
        """Tasks that a redrive created, and their fallbacks → the entry of the redrive."""
        self.unreadable = 0
        """Number of foreign records, which are no entries."""
        for record in records:
            self.take(record)

    def take(self, record: Record) -> RedriveEntry | None:
        """Take one record; return its entry, or None."""
        entry = entry_of(record)
        if entry is None:
            self.unreadable += record.value is not None
            return None
        self.add(entry)
        return entry

    def add(self, entry: RedriveEntry) -> None:
        """Take one entry; it replaces an earlier one of the same key and is last."""
        entries = self._entries.setdefault(entry.letter, {})
        if entries.pop(entry.key, None) is None and entry.run_id and entry.n:
            self._successors.update(dict.fromkeys(successor_ids(entry.run_id, entry.key), entry))
        entries[entry.key] = entry

    def of(self, letter_id: str) -> Sequence[RedriveEntry]:
        """Return the entries of a letter, the last changed one last."""
        return tuple(self._entries.get(letter_id, {}).values())

    def interrupted(self, way: str) -> list[RedriveEntry]:
        """Return the entries that are still to be sent in one way."""
        lasts = (next(reversed(entries.values())) for entries in self._entries.values())
        return [entry for entry in lasts if entry.state == PLANNED and entry.way == way]

    def status_of(self, letter: Letter) -> LetterStatus:
        """Return the status of a letter."""
        entries, before = self.of(letter.id), max(letter.redrives, self._before(letter))
        if not entries:
            return LetterStatus(NEW, 0, before)
        without_effect = sum(entry.result == NOTHING_TO_REDRIVE for entry in entries)
        return LetterStatus(entries[-1].state, max(entry.n for entry in entries), before, entries[-1], without_effect)

    def _before(self, letter: Letter) -> int:
        """Count the redrives of the letter from which this one came, by a failed task or by a refused event."""
        parent = self._successors.get(letter.task_id)
        for name in ("ce_causationid", "ce_id"):
            key = letter.header(name)
            parent = parent or self._entries.get(key.rpartition(":r")[0], {}).get(key)
        return 0 if parent is None else parent.before + parent.n


def entry_record(entry: RedriveEntry, topology: Topology) -> NewRecord:
    """Return the record of an entry."""
    body: dict[str, Any] = {"v": 1, **entry._asdict(), "at": rfc3339(entry.at_ms)}
    body["data"] = None if entry.data is None else b64encode(entry.data).decode()
    kept = {name: value for name, value in body.items() if value not in ("", None)}
    return NewRecord(ledger_topic(topology), entry.key.encode(), orjson.dumps(kept), partition=0)


def entry_of(record: Record) -> RedriveEntry | None:
    """Return the entry in a record; None if the record is invalid."""
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
