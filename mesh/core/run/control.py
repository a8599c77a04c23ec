"""Who is stopped, by whom, since when and why: what mesh.control says. Pure.

A *switch* is one thing that can be turned: an agent, all agents (by people), the breaker of an agent (by the mesh), or
a fault that somebody puts in on purpose (`core.task.fault_injection`).
The last record about a switch is its state, so the topic may be compacted (the key is the switch), and what nobody
ever turned is at rest: agents run, breakers are closed. `Control` is the fold of the topic.

Workers follow the topic itself. Orchestrators relay it into each partition of mesh.inbox, as one `switched` event
under the run id `*` that holds everything as of one offset of mesh.control: so what `decide` knows lies in the inbox,
a repeated or late relay changes nothing, and one that was lost is made good by the next. A false one, which names an
offset that mesh.control has not reached or says something else of one that it has, is corrected by the owner of the
partition (`runtime.control_relay`): so nothing that is written to the inbox keeps true statements out.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Final, NamedTuple

import orjson

from mesh.core.protocol.codec import Unreadable, event_headers, read_event
from mesh.core.protocol.event import CANCELLED, PAUSED, RESUMED, SWITCHED, Event
from mesh.core.protocol.record import NewRecord, Record
from mesh.core.topology.model import Topology

ALL: Final = "*"
"""In the place of an agent's name: all of them. Also the run id of `switched` events, which no run can have."""
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
"""What can be turned, and to which states; the first one is rest."""
TEXT_CHARS_MAX: Final = 500
"""Of `by` and `why`, as they are written."""
_WISHES: Final = {CANCELLED: "mesh.cancel", PAUSED: "mesh.pause", RESUMED: "mesh.resume"}


class Switch(NamedTuple):
    """One thing and the state it was turned to. `agent` may be `*`; `at_ms` is log time, `offset` on mesh.control."""

    what: str
    agent: str
    state: str
    by: str = ""
    why: str = ""
    at_ms: int = 0
    offset: int = -1
    how: str = ""
    """Of a fault: what it does (`chaos.Break.text`)."""
    until_ms: int = 0
    """Of a fault: when it ends by itself, in ms since the epoch."""

    @property
    def key(self) -> str:
        """What is turned, as one word: `agent:pricing`, `agent:*`, `breaker:pricing`."""
        return f"{self.what}:{self.agent}"

    @property
    def at_rest(self) -> bool:
        """Whether work goes on."""
        return self.state == STATES[self.what][0]


@dataclass(frozen=True, slots=True)
class Control:
    """All switches that are not at rest, as of one record of mesh.control. Never changed."""

    offset: int = -1
    """Of the last record of mesh.control that counts here; -1: none yet."""
    at_ms: int = 0
    """When that one was written."""
    switches: Mapping[str, Switch] = field(default_factory=dict)
    """By `Switch.key`, in the order in which they were turned."""

    def with_switch(self, switch: Switch) -> "Control":
        """This, after one more record."""
        switches = {key: other for key, other in self.switches.items() if key != switch.key}
        if not switch.at_rest:
            switches[switch.key] = switch
        return Control(switch.offset, switch.at_ms, switches)

    def breaker_of(self, agent: str) -> Switch | None:
        """That the breaker of an agent is open; None: it is closed."""
        return self.switches.get(f"{BREAKER}:{agent}")

    def stop_of(self, agent: str) -> Switch | None:
        """What keeps an agent from working: the stop of all agents, else its own; None: nothing does."""
        return self.switches.get(f"{AGENT}:{ALL}") or self.switches.get(f"{AGENT}:{agent}")

    @property
    def stops(self) -> list[Switch]:
        """Every stop that stands, the earliest first."""
        return [switch for switch in self.switches.values() if switch.what == AGENT]


NOTHING: Final = Control()


def control_record(switch: Switch, topology: Topology, *, event_id: str) -> NewRecord:
    """The record for mesh.control that turns a switch. Its time and offset are those that the log will give it."""
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
    """The switch that a record of mesh.control turned, or why it turns none."""
    event = read_event(record)
    if isinstance(event, Unreadable):
        return event
    body = _document(event)
    switch = None if body is None else _switch({**body, "at_ms": record.timestamp, "offset": record.offset})
    return switch or _unreadable(event)


def fold_control(control: Control, records: Iterable[Record]) -> tuple[Control, list[Unreadable]]:
    """What stands after these records of mesh.control, and what was wrong with those that turn nothing."""
    flaws = []
    for record in records:
        switch = read_switch(record)
        if isinstance(switch, Unreadable):
            flaws.append(switch)
            control = replace(control, offset=record.offset, at_ms=record.timestamp)
        else:
            control = control.with_switch(switch)
    return control, flaws


def relay_record(control: Control, topology: Topology, partition: int, *, replaces: int | None = None) -> NewRecord:
    """The record that tells one partition of the inbox what mesh.control says. `replaces`: the offset of a false
    statement that was folded there, which this one corrects though its own offset may be lower."""
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
    return NewRecord(topology.inbox, ALL.encode(), data, event_headers(event), partition)


def read_control(event: Event) -> Control | Unreadable:
    """What a `switched` event on the inbox holds."""
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
    """The offset of the statement that a `switched` event corrects; None: it corrects none."""
    offset = (_document(event) or {}).get("replaces")
    return offset if _whole(offset) else None


def command_record(
    kind: str, run_id: str, topology: Topology, *, event_id: str, at_ms: int, by: str, why: str
) -> NewRecord:
    """The record for mesh.inbox by which somebody cancels, pauses or resumes a run. `kind`: the event's; its subject
    says who and why in one line."""
    by, why = by[:TEXT_CHARS_MAX], why[:TEXT_CHARS_MAX]
    event = Event(
        event_id,
        f"/mesh/{topology.name}",
        _WISHES[kind],
        kind,
        run_id,
        orjson.dumps({"by": by, "why": why}),
        at_ms,
        subject=": ".join(filter(None, (by, why))),
    )
    return NewRecord(topology.inbox, run_id.encode(), event.data, event_headers(event))


def _document(event: Event) -> dict[str, Any] | None:
    try:
        body = orjson.loads(event.data)
    except orjson.JSONDecodeError:
        return None
    return body if isinstance(body, dict) else None


def _switch(body: Mapping[str, Any]) -> Switch | None:
    """A switch from its fields; unknown ones are left for a later version of the mesh to read."""
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
