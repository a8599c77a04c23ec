"""One partition, two versions of topics.yaml: under which of them a run is opened follows from the records alone."""

from dataclasses import replace

import pytest

from mesh.core.protocol.event import ADOPTED, Event
from mesh.core.protocol.record import Record, StoredRecord
from mesh.core.publishing.effect_records import adopted_record, inbox_record
from mesh.core.run.control import ALL
from mesh.core.run.effects import Adopt, DeadLetter, PublishTask
from mesh.core.state.partition_state import Partition, TopologyMissing
from mesh.core.state.topology_registry import Era, Registry, era_record, step
from mesh.core.topology.model import Topology
from mesh.core.topology.serialization import pinned_bytes
from tests.builders import AT_MS, event, topology

ONE = replace(topology(a="ask -> answer"), digest="1" * 16)
TWO = replace(topology(b="ask -> answer", c="other -> answer"), digest="2" * 16)


def partition(now: Topology = ONE, *known: Topology) -> Partition:
    return Partition(now, number=0, partitions=1, pinned={one.digest: one for one in known})


def stored(offset: int, one: Event) -> Record:
    made = inbox_record(one, ONE)
    return StoredRecord(made.topic, 0, offset, AT_MS + offset, made.key, made.value, made.headers)


def request(offset: int, type: str = "ask", admitted: str = "") -> Record:
    return stored(offset, event(id=f"e{offset}", run_id=f"run-{offset}", type=type, topology=admitted))


def adopted(offset: int, mesh: Topology) -> Record:
    made = adopted_record(mesh.digest, 0, AT_MS, ONE)
    return StoredRecord(made.topic, 0, offset, AT_MS + offset, made.key, made.value, made.headers)


def agents(state: Partition, record: Record) -> list[str]:
    return [effect.event.agent for effect in state.step(record) if isinstance(effect, PublishTask)]


def test_runs_are_opened_under_what_the_partition_adopted_last_and_keep_it() -> None:
    state = partition(ONE, TWO)
    assert agents(state, request(0)) == ["a"]
    assert state.step(adopted(1, TWO)) == [Adopt(0, 1, TWO.digest, ONE.digest)]
    assert agents(state, request(2)) == ["b"]
    assert state.step(adopted(3, ONE)) == [Adopt(0, 3, ONE.digest, TWO.digest)]
    assert agents(state, request(4)) == ["a"]
    assert [state.runs[f"run-{n}"].topology for n in (0, 2, 4)] == [ONE.digest, TWO.digest, ONE.digest]


def test_a_type_that_only_the_admitting_topology_declares_opens_its_run_under_that_one() -> None:
    state = partition(ONE, TWO)
    assert agents(state, request(0, "other", TWO.digest)) == ["c"]
    assert state.runs["run-0"].topology == TWO.digest
    assert agents(state, request(1, "ask", TWO.digest)) == ["a"], "what the partition declares it decides"


def test_a_topology_that_the_process_does_not_know_yet_is_asked_for_and_the_record_folded_again() -> None:
    for record, needed in ((request(0, "other", TWO.digest), False), (adopted(0, TWO), True)):
        state = partition()
        with pytest.raises(TopologyMissing) as missing:
            state.step(record)
        assert (missing.value.digest, missing.value.needed, state.offset) == (TWO.digest, needed, 0)
        state.topologies[TWO.digest] = TWO
        assert state.step(record)
        assert state.offset == 1


@pytest.mark.parametrize("reason", ["not kept", "kept later", "declares it not"])
def test_a_type_that_no_known_topology_takes_is_refused_by_a_name_of_its_own(reason: str) -> None:
    state, admitted = partition(ONE, TWO), {"not kept": "9" * 16}.get(reason, TWO.digest)
    state.kept_ms = {TWO.digest: AT_MS + 1} if reason == "kept later" else {}
    record = request(0, "nothing" if reason == "declares it not" else "other", admitted)
    (letter,) = [effect for effect in step(state, record) if isinstance(effect, DeadLetter)]
    assert letter.code == "other_topology"
    assert admitted in letter.message
    assert ONE.digest in letter.message


def test_a_second_request_that_its_run_cannot_take_names_both_topologies() -> None:
    state = partition(ONE, TWO)
    state.step(stored(0, event(id="e0")))
    effects = state.step(stored(1, event(id="e1", type="other", topology=TWO.digest)))
    assert [effect.code for effect in effects if isinstance(effect, DeadLetter)] == ["other_topology"]


def test_an_adoption_that_is_misplaced_or_names_nothing_is_a_dead_letter() -> None:
    nameless = stored(0, event(ADOPTED, run_id=ALL))
    elsewhere = stored(1, event(ADOPTED, topology=TWO.digest))
    state = partition(ONE, TWO)
    codes = [effect.code for record in (nameless, elsewhere) for effect in state.step(record)]  # type: ignore[union-attr]
    assert codes == ["missing_header", "key_mismatch"]
    assert state.topology == ONE


def test_stored_records_show_where_partitions_adopted_which_topology() -> None:
    kept = Registry(ONE.inbox)
    for n, one in enumerate((ONE, TWO)):
        kept.fold(StoredRecord("t", 0, n, AT_MS, one.digest.encode(), pinned_bytes(one), ()))
    stored = [Adopt(0, 7, TWO.digest, ONE.digest), Adopt(0, 3, ONE.digest, TWO.digest)]
    for adoption in (*stored, stored[0]):  # in any order, and more than once
        made = era_record(adoption, ONE)
        kept.fold(StoredRecord("t", 0, 2, AT_MS, made.key, made.value, ()))
    assert kept.eras == {0: [Era(3, ONE.digest, TWO.digest), Era(7, TWO.digest, ONE.digest)]}
    assert [kept.topology_at(0, offset) for offset in (0, 3, 4, 7, 8)] == [TWO, TWO, ONE, ONE, TWO]
    assert kept.topology_at(1, 5) == ONE, "a partition that adopted nothing is at the first one"
    kept.current[1] = TWO.digest
    assert kept.topology_at(1, 5) == TWO
    assert Registry(ONE.inbox).topology_at(0, 0) is None
    kept.fold(StoredRecord("t", 0, 3, AT_MS, b"mesh.inbox:0:x", b"{}", ()))
    assert "mesh.inbox:0:x" in kept.unreadable
