"""Which records of a topic are wanted: by run, type, agent, key and condition."""

from collections.abc import Callable
from typing import NamedTuple

from mesh.core.protocol.codec import Unreadable
from mesh.core.protocol.event import JSON, Event
from mesh.core.protocol.record import Record
from mesh.core.selection.where import Where, payloads_of, record_attributes


class RecordFilter(NamedTuple):
    """A choice of records. None: any. A record that holds no event fits neither `run`, `type` nor `agent`."""

    run: str | None = None
    """Id of the run."""
    type: str | None = None
    agent: str | None = None
    key: Callable[[str], bool] | None = None
    where: Where | None = None

    def fits(self, record: Record, event: Event | Unreadable) -> bool:
        """Whether a record is wanted. `event`: what `read_event` made of it."""
        read = None if isinstance(event, Unreadable) else event
        if read is None:
            if not self.run is self.type is self.agent is None:
                return False
        elif (
            (self.run is not None and read.run_id != self.run)
            or (self.type is not None and read.type != self.type)
            or (self.agent is not None and read.agent != self.agent)
        ):
            return False
        if self.key is not None and not self.key((record.key or b"").decode("utf-8", "backslashreplace")):
            return False
        return self.where is None or _holds(self.where, record, read)


def _holds(where: Where, record: Record, event: Event | None) -> bool:
    if event is None:
        payloads = payloads_of("", JSON, record.value or b"")
    else:
        payloads = payloads_of(event.type, event.content_type, event.data)
    return where.holds(payloads, record_attributes(record, event))
