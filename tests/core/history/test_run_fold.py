"""The fold of one run: what each of its records decided, under the topology that the run was opened with."""

from dataclasses import replace

from mesh.core.history.run_fold import Decided, RunFold
from mesh.core.protocol.codec import Unreadable
from mesh.core.protocol.partitioner import partition_of
from mesh.core.protocol.record import StoredRecord
from mesh.core.run.control import ALL
from mesh.core.run.effects import Finish, PublishTask
from mesh.core.state.partition_state import Partition
from mesh.core.topology.model import Topology
from tests.builders import RUN_ID, event, record, topology
from tests.playbook import Playbook, requested, succeeded

DESK = topology(plan="ask -> plan.ready", price="plan.ready -> priced")
HOME = partition_of(RUN_ID.encode(), DESK.inbox_partitions)


def records() -> list[StoredRecord]:
    play, found = Playbook(DESK), list[StoredRecord]()
    for move in (requested(), succeeded("plan", "plan.ready"), succeeded("price", "priced")):
        play.let(move)
        assert play.last is not None
        found.append(record(play.last, len(found)))
    return found


def fold(mesh: Topology = DESK) -> RunFold:
    return RunFold(mesh, RUN_ID, partition=HOME)


def test_each_record_is_decided_and_the_last_state_stays_after_the_end() -> None:
    one = fold()
    decided = [one.take(stored) for stored in records()]
    assert all(isinstance(found, Decided) for found in decided)
    states = [found for found in decided if isinstance(found, Decided)]
    assert states[0].before is None
    assert [found.before for found in states[1:]] == [found.after for found in states[:-1]]
    assert isinstance(states[-1].effects[-1], Finish)
    assert one.run is not None
    assert one.run.ending == "completed"
    assert one.topology_of(one.run) is DESK
    late = one.take(record(event(id="r2"), 3))
    assert isinstance(late, Decided)
    assert (late.before, late.after) == (one.run, None)


def test_records_of_others_decide_nothing_here() -> None:
    one = fold()
    assert one.take(record(event(run_id="run-9", id="x"), 0)) is None
    assert one.take(record(event("switched", run_id=ALL, id="s"), 1)) is None
    assert one.take(record(event(run_id="run-9"), 2, headers=())) is None
    assert isinstance(one.take(record(event(), 3, headers=())), Unreadable)
    assert one.run is None


def test_a_fold_goes_on_from_a_checkpoint() -> None:
    state = Partition(DESK, number=HOME, partitions=DESK.inbox_partitions)
    first, *rest = records()
    state.step(first)
    one = fold(replace(DESK, digest="1" * 16))
    assert one.begin_with(state) is state.runs.get(RUN_ID)
    decided = one.take(rest[0])
    assert isinstance(decided, Decided)
    assert [e.event.agent for e in decided.effects if isinstance(e, PublishTask)] == ["price"]
    assert one.run is not None
    assert one.topology_of(one.run).digest == DESK.digest
    assert not one.breakers
