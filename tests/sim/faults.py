"""The faults, scheduled in a world. Each occurs at its time, or a number of callbacks of its process later.


crash      kill -9 of a process, `arg` callbacks after the time; it starts again `for_ms` later.
pause      SIGSTOP, `arg` callbacks after the time, for `for_ms`: a zombie when the group has continued without it.
cut        the link to the log: out, in or both ways, for `for_ms`.
arm        one of the next appends or commits is lost, loses its answer, arrives twice or late.
strike     the process dies, or is stopped, right when one of its next appends or commits has been done.
stop       a graceful stop; the next process begins at once or when it has ended.
grow       one more orchestrator, intake or worker comes, and ends after `for_ms`.
silence    the board does not answer for `for_ms`.
rollback   the board is as it was `for_ms` before, or empty.
skew       the clock of a process jumps
step       the clock of a broker, or of all, is set forward or back by `arg` ms
retain     the inbox loses what lies before the checkpoints that are named
copy       records of the mesh's own topics are appended once more
stale      an old result comes again, for an attempt that is over
junk       bytes that are no event, on any topic
wish       an operator cancels, pauses or resumes a run.
switch     an operator stops an agent, or all of them, for `for_ms`.
redrive    an operator sends a dead letter again.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from mesh.core.dead_letters.letter import letter_of
from mesh.core.dead_letters.redrive_log import NEW, LetterStatus
from mesh.core.dead_letters.redrive_plan import RedriveOptions, Sending, plan_redrive
from mesh.core.protocol.codec import event_headers, read_event
from mesh.core.protocol.event import CANCELLED, PAUSED, RESUMED, SWITCHED, Event
from mesh.core.protocol.record import NewRecord, StoredRecord, TopicPartition, record_bytes
from mesh.core.run.control import AGENT, RUNNING, STOPPED, Switch, command_record, control_record
from mesh.core.state.checkpoint import read_note
from tests.sim.board import Life
from tests.sim.plan import STEP, Fault, Shape
from tests.sim.stage import Machine, Stage
from tests.sim.world import Host

FATES = ("lose", "lose_reply", "twice", "late", "lose_reply")
SKEW_MS_MAX = 3_600_000
"""Largest shift of a process's clock, in both directions."""
CUTS = ("out", "in", "both")


def schedule(stage: Stage) -> None:
    """Put all faults of the stage's plan on its calendar."""

    def strike(host: Host, how: str) -> None:
        for machine in (*stage.machines, *stage.guests):
            if machine.main is not None and machine.host is host and not host.dead:
                if how == "die":
                    machine.kill(stage.random.choice((20, 300, 1_500)))
                elif not host.paused:
                    _freeze(stage, host, stage.random.choice((300, 1_300, 2_500)))

    stage.world.strike = strike
    for fault in stage.plan.faults:
        stage.world.later(fault.at_ms, _KINDS[fault.kind], stage, fault)


def _machine(stage: Stage, fault: Fault) -> Machine | None:
    machine = stage.machines[fault.target % len(stage.machines)]
    return None if machine.main is None or machine.main.done() or machine.host.dead else machine


def _after_steps(machine: Machine, steps: int, do: Callable[[], None]) -> None:
    """Do something right before the victim's so-manieth callback."""
    host = machine.host
    left = steps

    def watch() -> None:
        nonlocal left
        left -= 1
        if left <= 0:
            host.watch = None
            do()

    host.watch = watch


def _crash(stage: Stage, fault: Fault) -> None:
    machines = [m for m in stage.machines if m.main is not None] if fault.target == 99 else [_machine(stage, fault)]
    for machine in machines:
        if machine is not None:
            _after_steps(machine, fault.arg, partial(machine.kill, fault.for_ms))


def _pause(stage: Stage, fault: Fault) -> None:
    machine = _machine(stage, fault)
    if machine is None:
        return
    _after_steps(machine, fault.arg, partial(_freeze, stage, machine.host, fault.for_ms))


def _freeze(stage: Stage, host: Host, for_ms: int) -> None:
    stage.world.tell(host.name, "is stopped")
    host.paused = True
    stage.gone(host)
    stage.world.later(for_ms, stage.unpause, host)


def _cut(stage: Stage, fault: Fault) -> None:
    machine = _machine(stage, fault)
    if machine is None:
        return
    machine.host.cut = CUTS[fault.arg % 3]
    stage.world.tell(machine.host.name, "cut off", machine.host.cut)
    if machine.host.silent:
        stage.gone(machine.host)
    stage.world.later(fault.for_ms, stage.mend, machine.host)


def _arm(stage: Stage, fault: Fault) -> None:
    machine = _machine(stage, fault)
    if machine is not None:
        kind = "commit" if fault.arg % 4 == 3 else "append"
        machine.host.armed.extend([(kind, FATES[fault.arg % 5])] * (1 + fault.arg % 3))


def _strike(stage: Stage, fault: Fault) -> None:
    machine = _machine(stage, fault)
    if machine is None:
        return
    kind = "commit" if fault.arg % 5 == 4 else "append"
    machine.host.armed.extend([(kind, "")] * (fault.arg % 4) + [(kind, "freeze" if fault.arg % 3 == 0 else "die")])


def _stop(stage: Stage, fault: Fault) -> None:
    machine = _machine(stage, fault)
    if machine is not None:
        stage.world.tell(machine.host.name, "is told to stop")
        machine.host.context.run(machine.process.stop)


def _grow(stage: Stage, fault: Fault) -> None:
    agents = tuple(stage.topology.agents)
    shapes = (Shape(("orchestrator",)), Shape(("worker",), agents), Shape(("intake",)))
    machine = Machine(stage, 100 + len(stage.machines), shapes[fault.arg % 3])
    machine.wanted = False
    machine.start()
    stage.guests.append(machine)
    stage.world.later(fault.for_ms, _leave, stage, machine, fault.arg % 2 == 0)


def _leave(stage: Stage, machine: Machine, politely: bool) -> None:
    if machine.main is None or machine.main.done() or machine.host.dead:
        return
    if politely:
        machine.host.context.run(machine.process.stop)
    else:
        machine.kill(0)


def _silence(stage: Stage, fault: Fault) -> None:
    stage.store.silent = True
    stage.world.tell("board", "falls silent")
    stage.world.later(fault.for_ms, _speak, stage)


def _speak(stage: Stage) -> None:
    stage.store.silent = False


def _rollback(stage: Stage, fault: Fault) -> None:
    if fault.arg % 3 == 0:
        stage.store.roll_back(Life({}, {}, {}))
    else:
        stage.world.later(fault.for_ms, stage.store.roll_back, stage.store.snapshot())


def _skew(stage: Stage, fault: Fault) -> None:
    machine = _machine(stage, fault)
    if machine is not None:
        machine.host.skew_ms = max(-SKEW_MS_MAX, min(SKEW_MS_MAX, machine.host.skew_ms + (fault.arg - 20) * 180_000))
        stage.world.tell(machine.host.name, "clock jumps", machine.host.skew_ms)


def _step(stage: Stage, fault: Fault) -> None:
    stage.broker.clocks.set(None if fault.target == 99 else fault.target, fault.arg)


def _retain(stage: Stage, fault: Fault) -> None:
    topology = stage.topology
    group = stage.broker.group(f"{topology.prefix}.orchestrator")
    for place, commit in group.commits.items():
        note = read_note(commit.metadata) if commit.metadata else None
        if note is not None and note.checkpoint:
            stage.broker.trim(place, note.offset)


def _copy(stage: Stage, fault: Fault) -> None:
    topology = stage.topology
    topics = [topology.inbox, *(topology.tasks(name) for name in topology.agents)]
    for _ in range(1 + fault.arg % 4):
        topic = stage.random.choice(topics[: 1 + fault.arg % len(topics)])
        found = _some(stage, topic)
        if found is not None:
            _append(stage, found)


def _stale(stage: Stage, fault: Fault) -> None:
    for _ in range(1 + fault.arg % 4):
        found = _some(stage, stage.topology.inbox)
        event = None if found is None else read_event(found)
        if found is None or not isinstance(event, Event) or not event.task_id:
            continue
        claimed = max(1, event.attempt + (fault.arg % 3) - 1)
        again = replace(event, attempt=claimed, id=f"{event.task_id}:{claimed}:{event.kind}", path=("liar",))
        _append(stage, found._replace(headers=event_headers(again)))


def _junk(stage: Stage, fault: Fault) -> None:
    topology = stage.topology
    topics = [
        topology.inbox,
        *(topology.tasks(n) for n in topology.agents),
        *(r.name for r in topology.ingress.values()),
    ]
    topic = topics[fault.arg % len(topics)]
    values = (None, b"\xff\x00", b"{}", b"[1")
    record = NewRecord(topic, b"junk", values[fault.arg % 4], [("mesh-sim-junk", b"1"), ("ce_meshkind", b"requested")])
    if stage.plan.record_bytes_max:  # its dead letter, which has more headers, does not fit
        room = stage.plan.record_bytes_max - record_bytes(record) - 6 - fault.arg % 3
        record = record._replace(headers=[*record.headers, ("h" * room, b"v")])
    _put(stage, record)


def _wish(stage: Stage, fault: Fault) -> None:
    found = _some(stage, stage.topology.inbox)
    event = None if found is None else read_event(found)
    if isinstance(event, Event) and event.kind != SWITCHED:
        kind = (CANCELLED, PAUSED, RESUMED)[fault.arg % 3]
        _wished(stage, kind, event.run_id, f"w{fault.at_ms}")
        if kind == PAUSED:
            stage.world.later(fault.for_ms, _wished, stage, RESUMED, event.run_id, f"u{fault.at_ms}")


def _wished(stage: Stage, kind: str, run_id: str, event_id: str) -> None:
    at_ms = stage.world.now_ms
    _put(
        stage,
        command_record(kind, run_id, stage.topology, event_id=event_id, at_ms=at_ms, by="sim", why="by chance"),
    )


def _switch(stage: Stage, fault: Fault) -> None:
    names = ["*", *stage.topology.agents]
    name = names[fault.arg % len(names)]
    _turned(stage, name, STOPPED)
    stage.world.later(fault.for_ms, _turned, stage, name, RUNNING)


def _turned(stage: Stage, name: str, state: str) -> None:
    switch = Switch(AGENT, name, state, "sim", "by chance", stage.world.now_ms)
    _put(stage, control_record(switch, stage.topology, event_id=f"s{stage.world.sequence}"))


def _redrive(stage: Stage, fault: Fault) -> None:
    found = _some(stage, stage.topology.dead)
    if found is None:
        return
    letter, how = letter_of(found), RedriveOptions(as_new=fault.arg % 4 == 3)
    for before in range(1 + fault.arg % 3 % 2):  # the second time is a redrive of its own
        step = plan_redrive(letter, LetterStatus(NEW, before), how, stage.topology, (), stage.world.now_ms)
        if isinstance(step, Sending):
            for record in step.records:
                for _ in range(1 + fault.arg % 2):
                    _put(stage, record)


def _put(stage: Stage, record: NewRecord) -> None:
    """Append a record, as a foreign writer."""
    home = stage.broker.home(record)
    if isinstance(home, TopicPartition):
        stage.broker.store(home, [record], "a foreign writer")


def _some(stage: Stage, topic: str) -> StoredRecord | None:
    records = [record for partition in stage.broker.topics[topic] for record in partition.records]
    return stage.random.choice(records) if records else None


def _append(stage: Stage, record: StoredRecord) -> None:
    place = TopicPartition(record.topic, record.partition)
    stage.broker.store(place, [NewRecord(record.topic, record.key, record.value, record.headers)], "stranger")


_KINDS: dict[str, Callable[[Stage, Fault], None]] = {
    "crash": _crash,
    "pause": _pause,
    "cut": _cut,
    "arm": _arm,
    "strike": _strike,
    "stop": _stop,
    "grow": _grow,
    "silence": _silence,
    "rollback": _rollback,
    "skew": _skew,
    STEP: _step,
    "retain": _retain,
    "copy": _copy,
    "stale": _stale,
    "junk": _junk,
    "wish": _wish,
    "switch": _switch,
    "redrive": _redrive,
}
