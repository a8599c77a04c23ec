"""Checks of a world at rest. They trust no report of a process, only the log.

The inbox is folded again from its first record. Exactly the records that follow from it must be in their partitions,
byte for byte. `moments` give the order of acts, so "acknowledged before committed" is checked for every commit.
"""

from collections.abc import Iterator

from mesh.core.ingress.admission import admit
from mesh.core.ingress.request_formats import Rejection
from mesh.core.protocol.codec import Unreadable, plain_headers
from mesh.core.protocol.event import FAILED, SUCCEEDED, TASK, Event
from mesh.core.protocol.record import NewRecord, StoredRecord, TopicPartition, coordinates
from mesh.core.publishing.effect_records import record_of
from mesh.core.publishing.replacement_records import replacements
from mesh.core.run.effects import Adopt, Finish, Note, Schedule
from mesh.core.state.partition_state import Partition
from mesh.core.state.topology_registry import Registry, step
from tests.log_check import check
from tests.sim.breakers import broken
from tests.sim.laws import breaches
from tests.sim.order import disorder
from tests.sim.plan import GENTLE, STEP
from tests.sim.stage import Stage

DEATHS_MAX = 3
"""Processes that one task may kill, isolated processes among them."""
WORKERS_MAX = 2
"""Workers that one task may kill."""
Name = tuple[str, bytes]
"""Topic, and id of what lies there."""


class Published:
    """Everything that lies outside of the inbox, by name: first moment, and all its different forms."""

    def __init__(self, stage: Stage) -> None:
        self.moments: dict[Name, int] = {}
        self.forms: dict[Name, list[StoredRecord]] = {}
        self.copies: dict[Name, int] = {}
        for partitions in stage.broker.topics.values():
            for partition in partitions:
                for record, moment in zip(partition.records, partition.moments, strict=True):
                    name = name_of(record)
                    self.moments[name] = min(moment, self.moments.get(name, moment))
                    self.copies[name] = self.copies.get(name, 0) + 1
                    forms = self.forms.setdefault(name, [])
                    if all(_differ(record, other) for other in forms):
                        forms.append(record)


def violations(stage: Stage) -> list[str]:
    """Everything that is wrong, in plain words."""
    published = Published(stage)
    found = list(_fold(stage, published))
    found += _committed_work(stage, published)
    found += _commits(stage)
    found += _requests(stage)
    found += _board(stage)
    found += breaches(stage.broker, stage.topology)
    found += disorder(stage.broker, stage.topology, stage.moods.started)
    found += broken(stage.moods.calls, stage.topology)
    found += _strays(stage)
    found += _verified(stage)
    found += _poison_ids(stage)
    return found


def _strays(stage: Stage) -> Iterator[str]:
    """The mesh and its clients write each record where its run lives."""
    for partition in stage.broker.topics[stage.topology.dead]:
        for record in partition.records:
            reason = dict(record.headers).get("mesh-dlq-reason", b"").decode()
            if reason in ("misrouted", "key_mismatch") and not _stranger(record):
                yield f"{coordinates(record)} is {reason}: {record.key!r}"


def _poison_ids(stage: Stage) -> Iterator[str]:
    """A poison task kills two workers and then an isolated process, if nothing else ends processes.

    No other task is given up for it. A second poison task may end a worker that has just answered for the first one:
    then the first one is begun once more, in an isolated process.
    """
    gentle = not stage.plan.slow and all(fault.kind in (*GENTLE, STEP) for fault in stage.plan.faults)
    killed = stage.moods.killed if gentle else {}
    for (task_id, attempt), died in killed.items():
        if sum(died) > WORKERS_MAX or (len(died) > DEATHS_MAX and len(killed) == 1):
            yield f"attempt {attempt} of the killer {task_id} has killed {len(died)} processes, {sum(died)} workers"
    for partition in stage.broker.topics[stage.topology.inbox]:
        for record, _, event in partition.read():
            if not isinstance(event, Event) or event.fault is None or event.fault.code != "crash_loop":
                continue
            if not stage.moods.kills(event.task_id):
                yield f"{coordinates(record)} calls a task a killer that is none"


def _verified(stage: Stage) -> Iterator[str]:
    """Return the violations that `mesh verify` finds in this log."""
    records = {
        topic: [record for partition in partitions for record in partition.records]
        for topic, partitions in stage.broker.topics.items()
    }
    commits = sorted(
        (moment, place, offset)
        for group in stage.broker.groups.values()
        for place, history in group.history.items()
        for moment, offset, _ in history
    )
    places = [(place, offset) for _, place, offset in commits]
    report = check(stage.topology, records, commits=places, kept=_kept(stage))
    yield from map(str, report.violations)


def _kept(stage: Stage) -> Registry:
    """Return the topologies of the simulated mesh.topologies."""
    kept = Registry(stage.topology.inbox)
    for record in stage.broker.topics[stage.topology.topologies][0].records:
        kept.fold(record)
    return kept


def name_of(record: StoredRecord | NewRecord) -> Name:
    """Return the name of a record: the id of its event or dead letter, or empty."""
    headers = dict(plain_headers(record.headers))
    return record.topic, headers.get("mesh-dlq-id") or headers.get("ce_id", b"")


def _differ(one: StoredRecord, other: StoredRecord | NewRecord) -> bool:
    if (one.key, one.value) != (other.key, other.value):
        return True
    return list(one.headers) != list(other.headers) and _lasting(one) != _lasting(other)


def _lasting(record: StoredRecord | NewRecord) -> list[tuple[str, bytes]]:
    """Return the lasting reason of a dead letter: the same failure of a repeated record is the same dead letter.

    The text about a missing value names the size of the record, which depends on the origin of the copy.
    """
    headers = list(plain_headers(record.headers))
    told = [(name, value) for name, value in headers if name.startswith("mesh-dlq-")]
    return [(name, b"" if name == "mesh-dlq-omitted" else value) for name, value in told] or headers


# ------------------------------------------------------------------------------------------------ the orchestrator's


def _fold(stage: Stage, published: Published) -> Iterator[str]:
    topology, kept = stage.topology, _kept(stage)
    expected: dict[Name, NewRecord] = {}
    outcomes: dict[str, list[str]] = {}
    ended: set[str] = set()
    for number, partition in enumerate(stage.broker.topics[topology.inbox]):
        state = Partition(topology, number=number, partitions=topology.inbox_partitions)
        kept.prepare(state, 0)
        history = stage.broker.group(f"{topology.prefix}.orchestrator").history.get(
            TopicPartition(topology.inbox, number), []
        )
        commits = iter(history)
        committed = next(commits, None)
        for record in partition.records:
            while committed is not None and committed[1] <= record.offset:
                committed = next(commits, None)
            for effect in step(state, record):
                if isinstance(effect, Finish):
                    if effect.event_id in ended:
                        yield f"run {effect.run.id} ends {outcomes[effect.run.id][-1]} and {effect.run.ending}"
                    ended.add(effect.event_id)
                    outcomes.setdefault(effect.run.id, []).append(effect.run.ending)
                    yield from _budget(stage, effect)
                if isinstance(effect, Note | Schedule):
                    continue
                if isinstance(effect, Adopt):
                    said = any(era.offset == effect.offset for era in kept.eras.get(number, ()))
                    if not said and committed is not None:  # else it came when all was at rest
                        yield f"{topology.topologies} does not say what {coordinates(record)} adopts"
                    continue
                wanted = record_of(effect, topology)
                wanted = _taken(stage, wanted)
                name = name_of(wanted)
                expected[name] = wanted
                where = f"{coordinates(record)} {_kind(record)}"
                yield from _is_there(published, name, wanted, committed, where)
        if state.runs:
            yield f"runs {sorted(state.runs)[:3]} are open though all is at rest"
    yield from _nothing_else(stage, published, expected)
    for run_id, told in stage.answers.items():
        if told not in outcomes.get(run_id, ()):
            yield f"a client was told that {run_id} ended {told}; the log says {outcomes.get(run_id)}"


def _kind(record: StoredRecord) -> str:
    headers: dict[str, bytes] = dict(plain_headers(record.headers))
    return headers.get("ce_meshkind", b"?").decode()


def _taken(stage: Stage, record: NewRecord) -> NewRecord:
    """The record, or what stands for it if the broker refuses it."""
    broker = stage.broker
    refused = broker.refusal(record)
    if refused is None:
        return record
    ladder = replacements(record, refused.code, refused.message, stage.topology, broker.record_bytes_max)
    return next(new for new in ladder if broker.refusal(new) is None)


def _is_there(
    published: Published, name: Name, wanted: NewRecord, committed: tuple[int, int, str] | None, where: str
) -> Iterator[str]:
    forms = published.forms.get(name)
    if forms is None:
        yield f"{name[0]} lacks {name[1].decode()}, which follows from {where}"
        return
    if wanted.topic.endswith(".inbox"):  # a failure in place of a task that was refused; agents' answers differ
        return
    for form in forms:
        if _differ(form, wanted):
            yield f"{coordinates(form)} ({name[1].decode()}) is not what follows from {where}"
    if committed is not None and published.moments[name] > committed[0]:
        text = f"{where} was passed by a commit of {committed[1]} by {committed[2]}"
        yield f"{text} before {name[0]} held {name[1].decode()}, which follows from it"


def _nothing_else(stage: Stage, published: Published, expected: dict[Name, NewRecord]) -> Iterator[str]:
    topology = stage.topology
    inside = {topology.inbox, topology.dead, *(r.name for r in topology.topics.values() if r.ingress)}
    inside |= {topic for topic in stage.broker.topics if topic not in _decided(stage)}
    for name, forms in published.forms.items():
        if name[0] in inside or name in expected or _stranger(forms[0]):
            continue
        if dict(forms[0].headers).get("ce_type") == b"mesh.request.rejected":
            continue
        yield f"{coordinates(forms[0])} ({name[1].decode()}) follows from nothing in the inbox"


def _decided(stage: Stage) -> set[str]:
    """Topics that hold only what `decide` wants."""
    topology = stage.topology
    egress = {rule.name for rule in topology.topics.values() if rule.egress}
    return {topology.outcomes, *(topology.tasks(name) for name in topology.agents), *egress}


def _budget(stage: Stage, effect: Finish) -> Iterator[str]:
    limits, run = stage.topology.limits, effect.run
    slack = max(spec.reserve_usd_micros for spec in stage.topology.agents.values()) + 120_000
    if limits.usd_micros_max is not None and run.usd_micros > limits.usd_micros_max + slack * max(1, len(run.open)):
        yield f"run {run.id} used {run.usd_micros} millionths of a dollar, at most {limits.usd_micros_max}"
    if run.tasks > limits.tasks_max:
        yield f"run {run.id} made {run.tasks} tasks, at most {limits.tasks_max}"


def _stranger(record: StoredRecord) -> bool:
    return any(name == "mesh-sim-junk" for name, _ in record.headers)


# ------------------------------------------------------------------------------------------- what others committed


def _committed_work(stage: Stage, published: Published) -> Iterator[str]:
    """A committed task has its answer in the log, a committed request is in the inbox: by then, not later."""
    topology = stage.topology
    answers: dict[tuple[str, int], int] = {}
    for partition in stage.broker.topics[topology.inbox]:
        for _, moment, event in partition.read():
            if isinstance(event, Event) and event.kind in (SUCCEEDED, FAILED):
                answers.setdefault((event.task_id, event.attempt), moment)
    dead: dict[tuple[bytes, bytes, bytes], int] = {}
    for partition in stage.broker.topics[topology.dead]:
        for record, moment in zip(partition.records, partition.moments, strict=True):
            headers = dict(record.headers)
            origin = tuple(headers.get(f"__dlq.errors.{part}", b"") for part in ("topic", "partition", "offset"))
            dead.setdefault(origin, moment)
            refused = headers.get("ce_meshtask")
            if refused is not None:
                answers.setdefault((refused.decode(), int(headers.get("mesh-attempt", b"1"))), moment)
    for name in topology.agents:
        for record, event, committed in _passed(stage, f"{topology.prefix}.{name}", topology.tasks(name)):
            answered: int | None = dead.get(_origin(record))
            if not isinstance(event, Unreadable) and event.kind == TASK and event.agent == name:
                answered = answers.get((event.task_id, event.attempt))
            if answered is None or answered > committed[0]:
                yield f"{coordinates(record)} was passed by a commit of {committed[1]} by {committed[2]}, unanswered"
    for rule in topology.topics.values():
        if rule.ingress:
            for record, _, committed in _passed(stage, f"{topology.prefix}.intake", rule.name):
                request = admit(record, topology)
                there: int | None = dead.get(_origin(record))
                if not isinstance(request, Rejection):
                    there = published.moments.get((topology.inbox, request.id.encode()), there)  # else refused
                if there is None or there > committed[0]:
                    yield f"{coordinates(record)} was passed by a commit of {committed[1]}, and is not in the inbox"


def _origin(record: StoredRecord) -> tuple[bytes, bytes, bytes]:
    return record.topic.encode(), b"%d" % record.partition, b"%d" % record.offset


def _passed(
    stage: Stage, group: str, topic: str
) -> Iterator[tuple[StoredRecord, Event | Unreadable, tuple[int, int, str]]]:
    """Records of a topic that a group has committed, with what is in them and the first commit that passed them."""
    for number, partition in enumerate(stage.broker.topics[topic]):
        commits = iter(stage.broker.group(group).history.get(TopicPartition(topic, number), ()))
        committed = next(commits, None)
        for record, _, event in partition.read():
            while committed is not None and committed[1] <= record.offset:
                committed = next(commits, None)
            if committed is None:
                break
            yield record, event, committed


def _commits(stage: Stage) -> Iterator[str]:
    for name, group in stage.broker.groups.items():
        for place, history in group.history.items():
            before = 0
            for _, offset, member in history:
                if offset < before:
                    yield f"{name} went back from {before} to {offset} of {place[0]}:{place[1]}, by {member}"
                if offset > stage.broker.partition(place).end:
                    yield f"{name} committed {offset} of {place[0]}:{place[1]}, beyond its end"
                before = offset


def _requests(stage: Stage) -> Iterator[str]:
    """Every acknowledged request is in the inbox or in the dead letters."""
    topology = stage.topology
    asked: set[bytes] = set()
    for topic in (topology.inbox, topology.dead):
        for partition in stage.broker.topics[topic]:
            for record in partition.records:
                asked.add(dict(plain_headers(record.headers)).get("ce_id", b""))
                asked.add(record.key or b"")
    for id in stage.acked:
        if id.encode() not in asked:
            yield f"request {id} was acknowledged and is nowhere"


def _board(stage: Stage) -> Iterator[str]:
    """Versions rise within a life; no write of one life carries the version of another."""
    last: dict[str, int] = {}
    for entry in stage.store.changes:
        life, _, counter = entry.version.partition(":")
        if int(counter) <= last.get(life, -1):
            yield f"the board's version {entry.version} was given twice"
        last[life] = int(counter)
