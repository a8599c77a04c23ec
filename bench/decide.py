"""Measure the cost of `decide`: `python -m bench.decide`. One process, no log, no I/O.

Three meshes: one step (request → agent → egress), a pipeline of three steps, and a join (three agents at once, then one
that needs all). Every run is played to its end through the codec, as a worker would answer. Figures are microseconds of
CPU time an event, each the best of several rounds:

    read      a record of the inbox → an event
    apply     decide, and the memory of runs, on events that were read before
    step      both, and the checks of place: what a fold costs
    perform   step, and the records that the effects become: what the orchestrator's process does for an event

Memory is that of runs that wait for their first task, and of runs remembered after their end, by tracemalloc.
"""

import argparse
import gc
import time
import tracemalloc
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

from bench.report import save
from mesh.core.protocol.codec import internal_headers, read_event
from mesh.core.protocol.event import NO_USAGE, REQUESTED, Event, Part, run_id_of
from mesh.core.protocol.partitioner import partition_of
from mesh.core.protocol.record import StoredRecord
from mesh.core.publishing.effect_records import record_of
from mesh.core.run.effects import Effect, Note, PublishTask, Schedule
from mesh.core.state.form import PURE, form
from mesh.core.state.partition_state import Partition
from mesh.core.task.result import success_event
from mesh.core.topology.model import AgentSpec, Limits, Row, TopicRule, Topology

PARTITIONS = 6
AT_MS = 1_795_176_000_000
PAYLOAD = b'{"order_id":"o-1","lines":[{"sku":"A-100","count":2},{"sku":"B-7","count":1}],"note":"' + b"x" * 120 + b'"}'


def topology(**agents: tuple[str, str]) -> Topology:
    """A mesh of agents given as (types consumed, type emitted); several consumed types are a join."""
    specs = {
        name: AgentSpec(name, "bench:none", tuple(on.split()), (emits,), join=" " in on)
        for name, (on, emits) in agents.items()
    }
    heard = {type for spec in specs.values() for type in spec.on}
    rows = {
        type: tuple(Row(s, s.on if s.join else ()) for s in specs.values() if type in s.on) for type in sorted(heard)
    }
    egress = {s.emits[0]: TopicRule("decided", egress=s.emits) for s in specs.values() if s.emits[0] not in heard}
    ingress = {"order.placed": TopicRule("orders.placed", ingress="order.placed")}
    topics = {rule.name: rule for rule in (*ingress.values(), *egress.values())}
    limits = Limits(usd_micros_max=1_000_000, tokens_max=1_000_000)
    return Topology(
        "bench", "0" * 16, limits, specs, topics, inbox_partitions=PARTITIONS, rows=rows, egress=egress, ingress=ingress
    )


MESHES = {
    "one step": topology(echo=("order.placed", "order.fulfilled")),
    "three steps": topology(
        stock=("order.placed", "stock.reserved"),
        price=("stock.reserved", "order.priced"),
        ship=("order.priced", "order.fulfilled"),
    ),
    "join": topology(
        stock=("order.placed", "stock.reserved"),
        price=("order.placed", "order.priced"),
        fraud=("order.placed", "fraud.scored"),
        ship=("stock.reserved order.priced fraud.scored", "order.fulfilled"),
    ),
}


def requests(runs: int) -> Iterator[Event]:
    """Requests whose runs lie in partition 0."""
    serial = made = 0
    while made < runs:
        serial += 1
        id = f"order-{serial:08d}"
        run_id = run_id_of("/topics/orders.placed", id)
        if partition_of(run_id.encode(), PARTITIONS) == 0:
            made += 1
            yield Event(
                id,
                "/topics/orders.placed",
                "order.placed",
                REQUESTED,
                run_id,
                PAYLOAD,
                AT_MS + made,
                subject=id,
                traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
                origin=f"orders.placed:0:{serial}",
            )


def partition(mesh: Topology) -> Partition:
    """The state of partition 0 before its first record."""
    return Partition(mesh, number=0, partitions=PARTITIONS)


def played(mesh: Topology, runs: int) -> list[StoredRecord]:
    """The inbox of these runs, fifty of them open at a time, as workers at the other end of a wire would fill it."""
    inbox: list[StoredRecord] = []
    state = partition(mesh)
    answers: deque[Event] = deque()
    coming = requests(runs)

    def fold(event: Event) -> None:
        at_ms = AT_MS + len(inbox)
        key = event.run_id.encode()
        inbox.append(StoredRecord(mesh.inbox, 0, len(inbox), at_ms, key, event.data, tuple(internal_headers(event))))
        for effect in state.step(inbox[-1]):
            if isinstance(effect, PublishTask):
                answers.append(answer(effect, mesh))

    for event in coming:
        fold(event)
        if len(state.runs) > 50:
            fold(answers.popleft())
    while answers:
        fold(answers.popleft())
    assert len(state.ended) == runs
    return inbox


def answer(effect: PublishTask, mesh: Topology) -> Event:
    """Return the answer of a task's agent, after the task was encoded and decoded."""
    sent = record_of(effect, mesh)
    task = read_event(StoredRecord(sent.topic, 0, 4_711, AT_MS, sent.key, sent.value, sent.headers))
    assert isinstance(task, Event)
    emits = mesh.agents[task.agent].emits[0]
    return success_event(task, [Part(emits, PAYLOAD)], NO_USAGE)


def best_us(rounds: int, events: int, work: Callable[[], object]) -> float:
    """Microseconds of CPU time an event, the best of several rounds."""
    times = []
    for _ in range(rounds):
        gc.collect()
        begun = time.process_time()
        work()
        times.append(time.process_time() - begun)
    return round(min(times) / events * 1e6, 2)


def read_all(inbox: list[StoredRecord]) -> None:
    """Only the codec."""
    for record in inbox:
        read_event(record)


def apply_all(mesh: Topology, events: list[Event]) -> None:
    """Only deciding, and the memory of runs."""
    state = partition(mesh)
    for offset, event in enumerate(events):
        state.apply(event, offset)


def fold_all(mesh: Topology, inbox: list[StoredRecord]) -> None:
    """A silent fold."""
    state = partition(mesh)
    for record in inbox:
        state.step(record)


def perform_all(mesh: Topology, inbox: list[StoredRecord]) -> None:
    """A fold that is performed."""
    state = partition(mesh)
    for record in inbox:
        for effect in state.step(record):
            if not isinstance(effect, Note | Schedule):
                record_of(effect, mesh)


def speed(mesh: Topology, runs: int, rounds: int) -> dict[str, Any]:
    """The figures of one mesh."""
    inbox = played(mesh, runs)
    events = [event for event in map(read_event, inbox) if isinstance(event, Event)]
    gc.collect()
    gc.freeze()  # what was prepared for measuring is no part of what is measured
    us = partial(best_us, rounds, len(inbox))
    step = us(lambda: fold_all(mesh, inbox))
    found = {
        "runs": runs,
        "events": len(inbox),
        "read_us": us(lambda: read_all(inbox)),
        "apply_us": us(lambda: apply_all(mesh, events)),
        "step_us": step,
        "perform_us": us(lambda: perform_all(mesh, inbox)),
        "fold_events_per_s": round(1e6 / step),
    }
    gc.unfreeze()
    return found


def memory(mesh: Topology, runs: int) -> dict[str, int]:
    """Bytes of a run that waits for its first task, and of one that is remembered after its end."""
    inbox = played(mesh, runs)
    read = [(record, read_event(record)) for record in inbox]
    asked = [(record, event) for record, event in read if isinstance(event, Event) and event.kind == REQUESTED]
    opening = [record for record, _ in asked]
    untraced = [record._replace(headers=internal_headers(replace(event, traceparent=""))) for record, event in asked]
    return {
        "open_run_bytes": _grown(mesh, untraced) // runs,
        "open_traced_run_bytes": _grown(mesh, opening) // runs,
        "remembered_run_bytes": _grown(mesh, inbox) // runs,
    }


def _grown(mesh: Topology, inbox: list[StoredRecord]) -> int:
    state = partition(mesh)
    gc.collect()
    tracemalloc.start()
    effects: list[Effect] = []
    for record in inbox:
        effects = state.step(record)
    del effects
    gc.collect()
    grown, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return grown


def main() -> None:
    """Measure, print, save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--runs", type=int, default=20_000, help="runs of each mesh (default: 20000, beyond all caches)"
    )
    parser.add_argument("--rounds", type=int, default=3, help="rounds, of which the best counts (default: 3)")
    given = parser.parse_args()
    figures: dict[str, Any] = {}
    print(f"{'':12} {'events':>7} {'read':>7} {'apply':>7} {'step':>7} {'perform':>8}  µs an event")
    for name, mesh in MESHES.items():
        found = figures[name] = speed(mesh, given.runs, given.rounds)
        line = f"{found['read_us']:7.2f} {found['apply_us']:7.2f} {found['step_us']:7.2f} {found['perform_us']:8.2f}"
        print(f"{name:12} {found['events']:7} {line}  fold {found['fold_events_per_s']:,} events/s")
    figures["memory"] = memory(MESHES["one step"], min(given.runs, 5_000))
    print(f"memory: {figures['memory']}")
    print(save("decide" if form() == PURE else "decide-compiled", figures))


if __name__ == "__main__":
    main()
