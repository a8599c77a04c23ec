"""Unrouted events: events that no agent, join or egress topic took. They are noted in the run and decide its ending.

An event is taken when it leaves the mesh, becomes a task, or arrives at a join. It is unrouted when no agent subscribes
to its type, or when the `when` of every subscribed agent is false.

The events of a join whose `when` is false are unrouted, too. The exception: another agent, join or egress topic took an
event that this `when` reads. That consumer then decided. The same holds for a join that waits for more at the end of a
run and whose `when` is false already. Another branch of a join may still take an event above a fan-out, so the events
of joins are judged when the run ends. A join on a cycle drops its inputs, so its events are judged when it is complete.

A repeated input of a join is noted whatever else took it, since the join continues without it.

With `otherwise: ignore` the `when` of an agent may be false, and an input of a join may be repeated: then no event is
unrouted. It does not excuse a missing field, since the name may be misspelt. A path that is compared with `null` may be
missing (`expression.partial_evaluation`).
"""

from collections.abc import Iterable, Mapping, Sequence, Set
from typing import Any, Final

from mesh.core.expression.partial_evaluation import missing_paths
from mesh.core.protocol.event import parse_json
from mesh.core.run.join import find_starved, nearest_inputs, used_inputs
from mesh.core.run.outputs import Emission
from mesh.core.run.state import Arrival, Branch, Run, Unrouted
from mesh.core.topology.model import AgentSpec, Row, Topology

MESSAGE_CHARS_MAX: Final = 500
"""Length to which a message is cut."""
KEPT_MAX: Final = 64
"""Different messages that a run keeps. Each further one is counted with the last."""
Used = dict[str, Set[tuple[str, Branch]]]
"""Name of a join → the inputs that it used or keeps while it waits, each as its type and its branch."""


def note_untaken(run: Run, emission: Emission, emitter: str, rows: Sequence[Row]) -> None:
    """Note an event that has no egress topic and became no task; `rows` are those of its type."""
    type, _, data, _ = emission
    if not rows:
        _note(run, type, emitter, "no agent hears it, and no topic lets it out")
        return
    payloads = {type: parse_json(data)}
    _note_refused(run, type, emitter, [(row.agent, payloads) for row in rows])


def note_repeated(run: Run, spec: AgentSpec, type: str, emitter: str) -> None:
    """Note a repeated input of a join, unless the join ignores it."""
    if not spec.ignores:
        _note(run, type, emitter, f"{spec.name} has got one already")


def close_joins(run: Run, topology: Topology, *, cut_short: bool = False) -> None:
    """Note the joins that starved, and the events of joins whose `when` is false.

    `cut_short`: tasks were open when the run ended, so a waiting join might have got more and is not noted.
    """
    unwanted = []
    for name, slots in run.joins.items():
        for slot in slots.values():
            if slot.declined or (slot.inputs and not slot.fired):
                break
        else:  # as in most runs: all inputs were used
            continue
        spec = topology.agents[name]
        branches = [branch for branch, slot in slots.items() if slot.fired and slot.declined]
        if not cut_short:
            sentences, waiting = find_starved(name, slots, spec.on, spec.when)
            run.starved = (*run.starved, *sentences)
            if waiting:
                marked = {branch: slots[branch]._replace(declined=True) for branch, _ in waiting}
                run.joins = {**run.joins, name: {**slots, **marked}}
                branches += [branch for branch, _ in waiting]
        unwanted += [(spec, branch) for branch in branches]
    used: Used = {}
    for spec, branch in unwanted:
        found = nearest_inputs(run.joins[spec.name], spec.on, branch)
        gathered = {type: arrival for type, (_, arrival) in found.items()}
        places = {type: (place,) for type, (place, _) in found.items()}
        _judge(run, spec, gathered, places, topology, used, closing=True)


def note_declined(
    run: Run, spec: AgentSpec, gathered: Mapping[str, Arrival], branch: Branch, topology: Topology
) -> None:
    """Note the events of a join on a cycle that is complete and whose `when` is false.

    The join has dropped its inputs. Each of them arrived in this branch or in one above.
    """
    places = [branch[:length] for length in range(len(branch) + 1)]
    _judge(run, spec, gathered, dict.fromkeys(gathered, places), topology, {})


def _judge(
    run: Run,
    spec: AgentSpec,
    gathered: Mapping[str, Arrival],
    places: Mapping[str, Sequence[Branch]],
    topology: Topology,
    used: Used,
    *,
    closing: bool = False,
) -> None:
    """Note the events of a join whose `when` is false, unless one of them was taken elsewhere.

    `places`: the branches in which each event may have arrived.
    """
    assert spec.when is not None, "a join without `when` takes its events"
    types = [type for type in gathered if type in spec.when.bound] or list(gathered)
    if any(_taken_elsewhere(run, spec, type, gathered[type].data, places[type], topology, used) for type in types):
        return
    payloads = {type: parse_json(arrival.data) for type, arrival in gathered.items()}
    emitter = gathered[types[0]].path[-1:]
    _note_refused(run, types[0], emitter[0] if emitter else "", [(spec, payloads)], closing=closing)


def _taken_elsewhere(
    run: Run, spec: AgentSpec, type: str, data: bytes, places: Sequence[Branch], topology: Topology, used: Used
) -> bool:
    if type in topology.egress:
        return True
    for row in topology.rows.get(type, ()):
        other = row.agent
        if other.name == spec.name:
            continue
        if row.join:
            if other.name not in used:
                slots = run.joins.get(other.name, {})
                used[other.name] = used_inputs(slots, other.on, cyclic=other.cyclic)
            if any((type, place) in used[other.name] for place in places):
                return True
        elif other.when is None or other.when.holds({type: parse_json(data)}):
            return True
    return False


def _note_refused(
    run: Run, type: str, emitter: str, asked: Iterable[tuple[AgentSpec, Mapping[str, Any]]], *, closing: bool = False
) -> None:
    """Note an event that every agent's `when` refused, unless one of them ignores what it refuses."""
    sentences, ignored, lacking = [], False, False
    for spec, payloads in asked:
        assert spec.when is not None, "an agent without `when` takes the event"
        paths = missing_paths(spec.when, payloads)
        lacking, ignored = lacking or bool(paths), ignored or spec.ignores
        lack = f"; {', '.join(paths)} is missing" if paths else ""
        sentences.append(f"{spec.name} takes it when {spec.when}{lack}")
    if lacking or not ignored:
        _note(run, type, emitter, "; ".join(sentences), closing=closing)


def _note(run: Run, type: str, emitter: str, why: str, *, closing: bool = False) -> None:
    message = f"{type} from {emitter or 'the request'}: {why}"
    if len(message) > MESSAGE_CHARS_MAX:
        message = f"{message[: MESSAGE_CHARS_MAX - 1]}…"
    kept = list(run.unrouted)
    at = next((n for n, known in enumerate(kept) if known.message == message and known.closing is closing), None)
    if at is None and len(kept) < KEPT_MAX:
        kept.append(Unrouted(type, emitter, message, closing=closing))
    else:
        at = len(kept) - 1 if at is None else at
        kept[at] = kept[at]._replace(times=kept[at].times + 1)
    run.unrouted = tuple(kept)
