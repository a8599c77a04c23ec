"""Switches: stopped agents, open breakers and injected faults, as mesh.control records them. Pure.

A *switch* is one thing and its state. Operators switch an agent or all agents, the mesh switches the breaker of an
agent, and `mesh break` switches a fault on (`core.task.fault_injection`). The record key is the switch and its last
record is its state, so the topic may be compacted. A switch without a record is at rest: agents run, breakers are
closed. `Control` is the fold of the topic.

Workers follow the topic itself. Orchestrators relay it into each partition of mesh.inbox, so that everything that
`decide` knows is in the inbox. A relay is one `switched` event under the run id `*`. It holds all switches as of one
offset of mesh.control. A repeated or late relay changes nothing, and the next relay replaces a lost one.
A relay is false if its offset is beyond the end of mesh.control, or if it contradicts the records up to its offset.
The owner of the partition corrects it (`runtime.control_relay`), so a false relay cannot block true ones.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Final, NamedTuple

import orjson

from mesh.core.protocol.codec import Unreadable, event_headers, internal_headers, read_event
from mesh.core.protocol.event import CANCELLED, PAUSED, RESUMED, SWITCHED, Event
from mesh.core.protocol.record import NewRecord, Record
from mesh.core.topology.model import Topology

ALL: Final = "*"
"""Placeholder for all agents. Also the run id of `switched` events; no run can have this id."""
AGENT: Final = "agent"
RUNNING: Final = "running"
STOPPED: Final = "stopped"
BREAKER: Final = "breaker"
CLOSED: Final = "closed"
OPENED: Final = "opened"
FAULT: Final = "fault"
MENDED: Final = "mended"
BROKEN: Final = "broken"

STATES: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {AGENT: (RUNNING, STOPPED), BREAKER: (CLOSED, OPENED), FAULT: (MENDED, BROKEN)}
)
"""Kind of switch → its states. The first state is the state at rest."""
ALERT_TYPE: Final = "mesh.alert."
"""Types of events on mesh.control that state facts and set no switch begin with this (`core.metrics.alerts`)."""
TEXT_CHARS_MAX: Final = 500
"""Limit of `by` and `why`; longer texts are cut."""
_COMMAND_TYPES: Final = {CANCELLED: "mesh.cancel", PAUSED: "mesh.pause", RESUMED: "mesh.resume"}


class Switch(NamedTuple):
    """One thing and its state. `agent` may be `*`; `at_ms` is log time, `offset` on mesh.control."""

    what: str
    agent: str
    state: str
    by: str = ""
    why: str = ""
    at_ms: int = 0
    offset: int = -1
    how: str = ""
    """Description of an injected fault (`fault_injection.Break.text`)."""
    until_ms: int = 0
    """End of an injected fault, in ms since the epoch."""

    @property
    def key(self) -> str:
        """Record key of the switch: `agent:pricing`, `agent:*`, `breaker:pricing`."""
        return f"{self.what}:{self.agent}"

    @property
    def at_rest(self) -> bool:
        """Whether the switch is in its state at rest."""
        return self.state == STATES[self.what][0]


@dataclass(frozen=True, slots=True)
class Control:
    """All switches that are not at rest, as of one record of mesh.control. Immutable."""

    offset: int = -1
    """Offset of the last record of mesh.control that is included; -1: none yet."""
    at_ms: int = 0
    """Log time of that record."""
    switches: Mapping[str, Switch] = field(default_factory=dict)
    """`Switch.key` → switch, in the order of their last records."""

    def with_switch(self, switch: Switch) -> "Control":
        """Return the control after one more record."""
        switches = {key: other for key, other in self.switches.items() if key != switch.key}
        if not switch.at_rest:
            switches[switch.key] = switch
        return Control(switch.offset, switch.at_ms, switches)

    def breaker_of(self, agent: str) -> Switch | None:
        """Return the switch of an agent's open breaker; None: the breaker is closed."""
        return self.switches.get(f"{BREAKER}:{agent}")

    def stop_of(self, agent: str) -> Switch | None:
        """Return the switch that stops an agent: the stop of all agents, else its own; None: the agent runs."""
        return self.switches.get(f"{AGENT}:{ALL}") or self.switches.get(f"{AGENT}:{agent}")

    @property
    def stops(self) -> list[Switch]:
        """All current stops, the earliest first."""
        return [switch for switch in self.switches.values() if switch.what == AGENT]


NOTHING: Final = Control()


def control_record(switch: Switch, topology: Topology, *, event_id: str) -> NewRecord:
    """Build the record for mesh.control that sets a switch. The log assigns its time and offset."""
    body = {"what": switch.what, "agent": switch.agent, "state": switch.state}
    texts: dict[str, Any] = {"by": switch.by[:TEXT_CHARS_MAX], "why": switch.why[:TEXT_CHARS_MAX]}
    if switch.how or switch.until_ms:
        texts |= {"how": switch.how[:TEXT_CHARS_MAX], "until_ms": switch.until_ms}
    event = Event(
        event_id,
        f"/mesh/{topology.name}",
        f"mesh.{switch.what}.{switch.state}",
        SWITCHED,
        ALL,
        orjson.dumps({**body, **texts}),
        switch.at_ms,
        subject="" if switch.agent == ALL else switch.agent,
    )
    return NewRecord(topology.control, switch.key.encode(), event.data, event_headers(event))


def read_switch(record: Record) -> Switch | Unreadable:
    """Read the switch that a record of mesh.control sets, or why the record is invalid."""
    event = read_event(record)
    if isinstance(event, Unreadable):
        return event
    body = _document(event)
    switch = None if body is None else _switch({**body, "at_ms": record.timestamp, "offset": record.offset})
    return switch or _unreadable(event)


def fold_control(control: Control, records: Iterable[Record]) -> tuple[Control, list[Unreadable]]:
    """Fold records of mesh.control. Returns the new control, and what is wrong with each invalid record."""
    flaws = []
    for record in records:
        switch = read_switch(record)
        if isinstance(switch, Unreadable):
            if not _is_fact(record):
                flaws.append(switch)
            control = replace(control, offset=record.offset, at_ms=record.timestamp)
        else:
            control = control.with_switch(switch)
    return control, flaws


def relay_record(control: Control, topology: Topology, partition: int, *, replaces: int | None = None) -> NewRecord:
    """Build the record that relays mesh.control to one partition of the inbox.

    `replaces`: the offset that a false relay claimed. This record corrects it although its own offset may be lower.
    """
    body: dict[str, Any] = {
        "offset": control.offset,
        "at_ms": control.at_ms,
        "switches": [switch._asdict() for switch in control.switches.values()],
    }
    id = f"control:{control.offset}"
    if replaces is not None:
        body["replaces"], id = replaces, f"{id}:{replaces}"
    data = orjson.dumps(body)
    event = Event(id, f"/mesh/{topology.name}", "mesh.switched", SWITCHED, ALL, data, control.at_ms)
    return NewRecord(topology.inbox, ALL.encode(), data, internal_headers(event), partition)


def read_control(event: Event) -> Control | Unreadable:
    """Read the control that a `switched` event of the inbox holds."""
    body = _document(event)
    if body is None or not _whole(body.get("offset")) or not _whole(body.get("at_ms")):
        return _unreadable(event)
    listed = body.get("switches")
    if not isinstance(listed, list):
        return _unreadable(event)
    switches: dict[str, Switch] = {}
    for item in listed:
        switch = _switch(item) if isinstance(item, dict) else None
        if switch is None:
            return _unreadable(event)
        switches[switch.key] = switch
    return Control(body["offset"], body["at_ms"], switches)


def replaced_offset(event: Event) -> int | None:
    """Return the offset that a `switched` event corrects; None: it corrects none."""
    offset = (_document(event) or {}).get("replaces")
    return offset if _whole(offset) else None


def command_record(
    kind: str, run_id: str, topology: Topology, *, event_id: str, at_ms: int, by: str, why: str
) -> NewRecord:
    """Build the record for mesh.inbox that cancels, pauses or resumes a run.

    `kind` is the kind of the event. Its subject holds `by` and `why` in one line.
    """
    by, why = by[:TEXT_CHARS_MAX], why[:TEXT_CHARS_MAX]
    event = Event(
        event_id,
        f"/mesh/{topology.name}",
        _COMMAND_TYPES[kind],
        kind,
        run_id,
        orjson.dumps({"by": by, "why": why}),
        at_ms,
        subject=": ".join(filter(None, (by, why))),
    )
    return NewRecord(topology.inbox, run_id.encode(), event.data, internal_headers(event))


def _is_fact(record: Record) -> bool:
    event = read_event(record)
    return not isinstance(event, Unreadable) and event.type.startswith(ALERT_TYPE)


def _document(event: Event) -> dict[str, Any] | None:
    try:
        body = orjson.loads(event.data)
    except orjson.JSONDecodeError:
        return None
    return body if isinstance(body, dict) else None


def _switch(body: Mapping[str, Any]) -> Switch | None:
    """Build a switch from its fields. Unknown fields, from a later version, are ignored."""
    texts = [body.get(name, "") for name in ("what", "agent", "state", "by", "why")]
    numbers = [body.get(name) for name in ("at_ms", "offset")]
    if not all(isinstance(text, str) for text in texts) or not all(map(_whole, numbers)):
        return None
    how, until_ms = body.get("how", ""), body.get("until_ms", 0)
    if not isinstance(how, str) or not isinstance(until_ms, int):
        return None
    switch = Switch(*texts, *numbers, how, until_ms)  # type: ignore[call-arg]  # mypy counts a starred list as endless
    return switch if switch.agent and switch.state in STATES.get(switch.what, ()) else None


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _unreadable(event: Event) -> Unreadable:
    known = "; ".join(f"{what}: {', '.join(states)}" for what, states in STATES.items())
    shown = event.data[:100].decode("utf-8", "replace")
    return Unreadable("bad_switch", f"this turns nothing that there is ({known}): {shown!r}")
