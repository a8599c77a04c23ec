"""Plan to send recorded requests again: each becomes a record for the ingress topic of its type, or an obstacle. Pure.

A request is planned as a letter whose record is the request, so the ledger of redrives and its rules hold for it. The
id of the letter is derived from the recorded mesh, the run and the request: whatever the source is, log or file, a
request is one letter. What is sent is a CloudEvent in binary mode with the payload of the request, byte for byte.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final, NamedTuple

from mesh.core.dead_letters.letter import Letter, letter_of
from mesh.core.dead_letters.redrive_log import PLANNED, RedriveEntry, RedriveLedger
from mesh.core.dead_letters.redrive_plan import RESEND, AlreadyDone, Obstacle, Sending, Step
from mesh.core.expression.field_path import parse_path
from mesh.core.ingress.admission import admit, is_forged
from mesh.core.ingress.request_formats import Rejection
from mesh.core.protocol.event import Event, derive_id, parse_json, rfc3339
from mesh.core.protocol.partitioner import home_of, key_of, partition_of
from mesh.core.protocol.record import NewRecord, Record, StoredRecord, UnreadValue
from mesh.core.topology.model import TopicRule, Topology

REPLAY: Final = "mesh-replay"
"""Header of a record that a resend put on an ingress topic: its key in the ledger."""
REPLAY_OF: Final = "replayof"
"""Extension attribute of a request that was sent again, and of what its run emits: the run that it repeats."""
_NO_TIME: Final = rfc3339(0)
"""Time of a request whose sender gave none."""


class RecordedRequest(NamedTuple):
    """A request as a recording holds it."""

    event: Event
    record: Record
    """Its record on the inbox."""
    key: bytes | None = None
    """Key of its record on the ingress topic."""
    key_known: bool = True
    """Whether that record is there."""
    masked: bool = False
    """Whether a value of its payload was masked in the recording."""


class ResendOptions(NamedTuple):
    """Options of a resend."""

    into: str = ""
    """The only ingress topic to send into; "": that of each type."""
    keep_ids: bool = False
    again: bool = False
    """Whether requests are sent again that were sent before."""


def is_resent(event: Event) -> bool:
    """Return whether a request was itself made by a resend."""
    return bool(repeated_run(event.extensions))


def repeated_run(extensions: Sequence[str]) -> str:
    """Return the run that a request with these extension attributes repeats, if a resend made it; else ""."""
    return dict(zip(extensions[::2], extensions[1::2], strict=True)).get(REPLAY_OF, "")


def ordering_key(request: RecordedRequest, rule: TopicRule) -> bytes | None:
    """Return the key of a request on an ingress topic: the declared field of its payload, else that of its record."""
    if rule.key is None:
        return request.key
    return key_of(parse_path(rule.key).value(parse_json(request.event.data)))


class ResendPlanner:
    """Plans requests in the order in which they are to be sent."""

    def __init__(
        self,
        prefix: str,
        topology: Topology,
        partitions: Mapping[str, int],
        ledger: RedriveLedger,
        options: ResendOptions,
    ) -> None:
        """`prefix`: of the recorded mesh. `topology`, `partitions`, `ledger`: of the mesh that gets the requests."""
        self._prefix = prefix
        self._topology = topology
        self._partitions = partitions
        self._ledger = ledger
        self._options = options
        self._runs: dict[str, str] = {}
        """Recorded run → the run that repeats it."""

    def plan(self, request: RecordedRequest) -> Step:
        """Plan one request."""
        event = request.event
        kept = ("kept",) if self._options.keep_ids else ()
        id = derive_id("resend", self._prefix, event.run_id, event.id, *kept)
        letter = replace(letter_of(request.record), id=id, run_id=event.run_id, type=event.type)
        status = self._ledger.status_of(letter)
        interrupted = status.last if status.state == PLANNED else None
        if interrupted is None and not status.open and not self._options.again:
            if status.last is not None and status.last.run_id:
                self._runs.setdefault(event.run_id, status.last.run_id)
            return AlreadyDone(letter, "sent before")
        n = status.n + 1 if interrupted is None else interrupted.n
        step = self._sending(letter, n, request, interrupted)
        if isinstance(step, Sending):
            self._runs.setdefault(event.run_id, step.run_id)
        return step

    def _sending(
        self, letter: Letter, n: int, request: RecordedRequest, interrupted: RedriveEntry | None
    ) -> Sending | Obstacle:
        rule = self._topic_of(letter)
        if isinstance(rule, Obstacle):
            return rule
        event, key = request.event, ordering_key(request, rule)
        obstacle = _unusable(letter, request) or _without_order(letter, request, rule)
        if obstacle is not None:
            return obstacle
        joined = self._runs.get(event.run_id)
        if joined is not None and not rule.join:
            what = f"it joined the run of an earlier request, and topic {rule.name} does not say `join: true`"
            return Obstacle(letter, what, "Declare it, or publish the request yourself")
        name, width = f"{letter.id}:r{n}", self._partitions[rule.name]
        headers = _headers(event, rule, name, joined, keep_id=self._options.keep_ids)
        home = partition_of(event.id.encode() if key is None else key, width)
        found = admit(StoredRecord(rule.name, home, 0, 0, key, event.data, headers), self._topology)
        if isinstance(found, Rejection):
            what = f"the mesh would reject it: {found.code}: {found.message}"
            return Obstacle(letter, what, "Choose others, or change topics.yaml of that mesh")
        record = NewRecord(rule.name, key, event.data, headers, home)
        return Sending(letter, n, RESEND, home, (record,), (name,), found.run_id, interrupted=interrupted)

    def _topic_of(self, letter: Letter) -> TopicRule | Obstacle:
        """Return the ingress topic of a request."""
        rule, into = self._topology.ingress.get(letter.type), self._options.into
        if rule is None:
            what = f"no ingress topic of mesh {self._topology.name} takes {letter.type}"
            return Obstacle(letter, what, "Choose others with --type, or name another topics.yaml")
        if into and rule.name != into:
            what = f"{letter.type} comes in by topic {rule.name}, not by {into}"
            return Obstacle(letter, what, f"Leave out --into, or name {rule.name}")
        if rule.name not in self._partitions:
            what = f"the log has no topic {rule.name}"
            return Obstacle(letter, what, "`mesh topics create` creates missing topics")
        return rule


def _unusable(letter: Letter, request: RecordedRequest) -> Obstacle | None:
    """Return why the payload of a request cannot be sent."""
    if isinstance(request.record.value, UnreadValue):
        return Obstacle(letter, f"its payload cannot be read: {request.record.value.message}")
    if request.masked:
        return Obstacle(letter, "a value of its payload was masked in the recording", "Name the log in place of it")
    return None


def _without_order(letter: Letter, request: RecordedRequest, rule: TopicRule) -> Obstacle | None:
    """Return that the ordering key of a request is lost. A run without an ordering key has none to lose."""
    run_id = letter.run_id.encode()
    if not rule.ordered or rule.key is not None or request.key_known or home_of(run_id) == run_id:
        return None
    what = f"topic {rule.name} has `order: key`, and the record with its key is not there"
    return Obstacle(letter, what, f"Declare the field of the payload as `key:` of {rule.name}")


def _headers(event: Event, rule: TopicRule, name: str, joined: str | None, *, keep_id: bool) -> list[tuple[str, bytes]]:
    """Return the headers of a request that is sent again. Its deadline and its trace have passed."""
    extensions = dict(zip(event.extensions[::2], event.extensions[1::2], strict=True)) | {REPLAY_OF: event.run_id}
    attributes = {
        "specversion": "1.0",
        "id": event.id if keep_id else name,
        "source": f"/topics/{rule.name}" if is_forged(event.source, rule) else event.source,
        "type": event.type,
        "subject": event.subject,
        "time": "" if event.time == _NO_TIME else event.time,
        "correlationid": joined or "",
        "causationid": event.cause_id if keep_id else event.id,
        **extensions,
    }
    headers = [(f"ce_{each}", text.encode()) for each, text in attributes.items() if text or each in extensions]
    return [*headers, ("content-type", event.content_type.encode()), (REPLAY, name.encode())]
