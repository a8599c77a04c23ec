"""Order in a world that has come to rest: events of one ordering key are begun as they lie on their ingress topic.

Judged by the log and by what agents were called with, without asking `decide`.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from mesh.core.ingress.admission import admit
from mesh.core.protocol.event import REQUESTED, Event
from mesh.core.protocol.partitioner import home_of
from mesh.core.topology.model import Topology
from tests.sim.broker import Broker

Begun = Iterable[tuple[str, int]]
"""(task id, attempt), in the order in which agents were called for the first time."""


class Place(NamedTuple):
    """The position of the first request of a run on the inbox."""

    offset: int
    at_ms: int
    request_id: str


def disorder(broker: Broker, topology: Topology, begun: Begun) -> Iterator[str]:
    """Every breach, in plain words."""
    if not topology.ordered:
        return
    places = _places(broker, topology)
    for rule in topology.ingress.values():
        for number, partition in enumerate(broker.topics[rule.name]):
            runs: dict[str, list[str]] = defaultdict(list)
            for record in partition.records:
                request = admit(record, topology)
                if isinstance(request, Event) and (home := _home(request.run_id)) and request.run_id in places:
                    runs[home].append(request.run_id)
            for home, ids in runs.items():
                where = f"{rule.name}:{number} to {topology.inbox}"
                yield from _overtaken(where, home, [places[id].offset for id in dict.fromkeys(ids)])
    for name, spec in topology.agents.items():
        if spec.key is not None and any(type in topology.ingress for type in spec.on):
            yield from _agent(broker, topology, name, places, begun)


def _agent(broker: Broker, topology: Topology, name: str, places: dict[str, Place], begun: Begun) -> Iterator[str]:
    """Tasks that were handed out as soon as they were wanted: none waited for a breaker, a pause or a retry."""
    called = {task: n for n, task in enumerate(begun)}
    for number, partition in enumerate(broker.topics[topology.tasks(name)]):
        tasks: dict[str, dict[str, tuple[int, int | None]]] = defaultdict(dict)
        for _, _, event in partition.read():
            if not isinstance(event, Event) or event.attempt != 1 or (place := places.get(event.run_id)) is None:
                continue
            if (event.cause_id, event.at_ms) == (place.request_id, place.at_ms) and (home := _home(event.run_id)):
                tasks[home].setdefault(event.task_id, (place.offset, called.get((event.task_id, 1))))
        for home, found in tasks.items():
            where = f"{topology.inbox} to {topology.tasks(name)}:{number}"
            yield from _overtaken(where, home, [offset for offset, _ in found.values()])
            yield from _overtaken(f"calls of {name}", home, [n for _, n in found.values() if n is not None])


def _overtaken(where: str, home: str, places: list[int]) -> Iterator[str]:
    if places != sorted(places):
        yield f"order of {home} is lost, {where}: {places}"


def _places(broker: Broker, topology: Topology) -> dict[str, Place]:
    found: dict[str, Place] = {}
    for partition in broker.topics[topology.inbox]:
        for record, _, event in partition.read():
            if isinstance(event, Event) and event.kind == REQUESTED and event.run_id not in found:
                found[event.run_id] = Place(record.offset, record.timestamp, event.id)
    return found


def _home(run_id: str) -> str:
    home = home_of(run_id.encode()).decode()
    return "" if home == run_id else home
