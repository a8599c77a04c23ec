"""Dead letters, and the records that they point at. Part of `verifier` and `stream_check`."""

from collections.abc import Sequence
from typing import NamedTuple

from mesh.core.protocol.event import REQUESTED, derive_id
from mesh.core.protocol.record import Record, coordinates
from mesh.core.reason_codes import DEAD, REASONS
from mesh.core.topology.model import Topology
from mesh.core.verification.publish_index import digest_of
from mesh.core.verification.report import VerificationReport, Violation


class LetterFacts(NamedTuple):
    """One record of mesh.dead."""

    id: str
    run_id: str
    event_id: str
    origin: str
    """Coordinates of the record that failed."""
    whole: bool
    """Whether it stands for the whole record at its origin, not for one hop."""
    from_outside: bool
    """Whether a worker or intake wrote it: the inbox does not lead to it."""
    of_refused: bool
    """Whether it stands for a record that the log refused."""
    of_request: bool
    repeated: bool
    """Whether an earlier one stands for the same whole record or request. A late request is refused each time."""


class Letters:
    """Checks dead letters by themselves (I8), and remembers what they point at."""

    def __init__(self, topology: Topology, report: VerificationReport) -> None:
        self._topology = topology
        self._report = report
        self._pointing: dict[str, tuple[str, bytes]] = {}
        """Coordinates → position of the dead letter that points there, and the digest of the bytes it claims."""
        self.buried: set[str] = set()
        """Coordinates that dead letters point at."""
        self._of_requests: set[str] = set()
        """Ids of the dead letters of requests."""

    @property
    def origins(self) -> Sequence[str]:
        """Coordinates outside the inbox that dead letters point at, without those given to `take_original`."""
        return tuple(self._pointing)

    def take(self, record: Record) -> LetterFacts:
        """Take a record of mesh.dead."""
        headers = {name: (value or b"").decode("utf-8", "replace") for name, value in record.headers}
        where = coordinates(record)
        id, code, run_id = (headers.get(f"mesh-dlq-{name}", "") for name in ("id", "reason", "run"))
        self._report.checked["I8"] += 1
        if not id or not headers.get("__dlq.errors.message"):
            what = "a dead letter has no id, or no reason as a sentence"
            self._report.add(Violation("I8", where, what, "mesh-dlq-id and __dlq.errors.message", published=where))
        elif code not in REASONS or DEAD not in REASONS[code].seen_at:
            what = "a dead letter has a reason code that the table does not give to dead letters"
            self._report.add(Violation("I8", where, what, "one of core.reason_codes", code, run_id, published=where))
        topic = headers.get("__dlq.errors.topic", "")
        origin = ":".join((topic, headers.get("__dlq.errors.partition", ""), headers.get("__dlq.errors.offset", "")))
        whole = id == derive_id("dead", origin)
        from_outside = whole and topic != self._topology.inbox
        of_request = headers.get("ce_meshkind") == REQUESTED
        repeated = (whole and origin in self.buried) or (of_request and id in self._of_requests)
        if whole:
            self.buried.add(origin)
        if of_request:
            self._of_requests.add(id)
        if from_outside and "mesh-dlq-omitted" not in headers:
            names = [name for name, _ in record.headers]
            ours = len(names) - 1 - names[::-1].index("__dlq.errors.topic")
            digest, _ = digest_of(record.key, record.value, record.headers[:ours])
            self._pointing[origin] = (where, digest)
        of_refused = code.startswith("refused_")
        event_id = headers.get("ce_id", "")
        return LetterFacts(id, run_id, event_id, origin, whole, from_outside, of_refused, of_request, repeated)

    def take_original(self, record: Record) -> None:
        """Compare a record with the dead letter that points at it, if there is one."""
        where = coordinates(record)
        letter, digest = self._pointing.pop(where, ("", b""))
        if not letter:
            return
        self._report.checked["I8"] += 1
        if digest_of(record.key, record.value, record.headers)[0] != digest:
            what = f"the dead letter differs from the record at {where}, which it points at"
            self._report.add(Violation("I8", letter, what, published=letter))

    def finish(self) -> None:
        """Count the originals that were not given."""
        if self._pointing:
            self._report.unchecked["records that dead letters point at"] += len(self._pointing)
