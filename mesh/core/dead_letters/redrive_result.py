"""Results of redrives, derived from the outcomes and dead letters that follow them. Pure."""

from collections.abc import Iterable

import orjson

from mesh.core.dead_letters.letter import REDRIVE, letter_of
from mesh.core.dead_letters.redrive_log import RedriveEntry
from mesh.core.dead_letters.redrive_plan import HOP, TASK
from mesh.core.ingress.admission import REJECTED_TYPE
from mesh.core.protocol.codec import Unreadable, read_event
from mesh.core.protocol.record import Record
from mesh.core.publishing.effect_records import OUTCOME_TYPE
from mesh.core.publishing.request_rejection import parse_late_request
from mesh.core.topology.model import Topology


class RedriveResults:
    """Collects the results of redrives from later records of mesh.outcomes and mesh.dead."""

    def __init__(self, entries: Iterable[RedriveEntry], topology: Topology) -> None:
        self._topology = topology
        self.waiting: dict[str, RedriveEntry] = {entry.key: entry for entry in entries}
        """Entries without a result, by key, which is also the id of the sent event."""
        self._of_run: dict[str, list[str]] = {}
        for key, entry in self.waiting.items():
            self._of_run.setdefault(entry.run_id, []).append(key)

    def take(self, record: Record) -> dict[str, str]:
        """Return the results in this record, by key of the entry, and stop waiting for them."""
        return self.resolve(self._dead(record) if record.topic == self._topology.dead else self._outcome(record))

    def resolve(self, results: dict[str, str]) -> dict[str, str]:
        """Stop waiting for entries with known results; return those that were waited for."""
        found = {key: result for key, result in results.items() if key in self.waiting}
        for key in found:
            del self.waiting[key]
        return found

    def _dead(self, record: Record) -> dict[str, str]:
        """Return the refusal of a redriven event that is a dead letter again, under the id it was sent with."""
        letter = letter_of(record)
        if letter.task_id:
            return {}  # it was taken and failed: the outcome of the run has the result
        names = [letter.header(name) for name in (REDRIVE, "ce_id", "ce_causationid")]
        key = next((name for name in names if name in self.waiting), "")
        return {key: f"refused: {letter.reason}"} if key else {}

    def _outcome(self, record: Record) -> dict[str, str]:
        run_id = (record.key or b"").decode("utf-8", "replace")
        concerned = [key for key in self._of_run.get(run_id, ()) if key in self.waiting] if run_id else []
        if not concerned:
            return {}
        event = read_event(record)
        if isinstance(event, Unreadable):
            return {}
        if event.type == REJECTED_TYPE:
            if parse_late_request(event) is not None:  # it answers another request for the run
                return {}
            return dict.fromkeys(concerned, "rejected")
        if not event.type.startswith(OUTCOME_TYPE):
            return {}
        try:
            body = orjson.loads(event.data)
        except orjson.JSONDecodeError:
            return {}
        consumed = body.get("redrives") if isinstance(body, dict) else None
        if isinstance(consumed, list):  # an outcome from before the redrive is not its result
            concerned = [key for key in concerned if key in consumed or self.waiting[key].way not in (TASK, HOP)]
        return dict.fromkeys(concerned, event.type.removeprefix(OUTCOME_TYPE))
