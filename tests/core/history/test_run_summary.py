"""One run in one line: why it did not complete, by name."""

from typing import Any

import orjson

from mesh.core.history.run_summary import outcome_of, summary_of, summary_of_outcome
from mesh.core.history.timeline import History
from mesh.core.protocol.partitioner import partition_of
from mesh.core.protocol.record import Record, StoredRecord
from mesh.core.publishing.effect_records import record_of
from mesh.core.run.effects import Finish
from mesh.core.run.state import Unrouted
from mesh.core.topology.model import Topology
from tests.builders import agent, record, run, topology
from tests.playbook import Playbook, requested

MESH = topology(big=agent("ask -> x", when="n > 9"))


def stored(mesh: Topology, **fields: Any) -> Record:
    ended = run(ending="partial", ended_ms=2_000_000_000_000, **fields)
    found = record_of(Finish(ended, "r1", ended.ended_ms), mesh)
    return StoredRecord(found.topic, 0, 0, 0, found.key, found.value, found.headers)


def test_an_outcome_names_what_kept_its_run_from_being_completed() -> None:
    facts: dict[str, Any] = {
        "starved": ("ship: got a; missing b", "ship: got b; missing a", "pack: got a; missing b"),
        "unrouted": (Unrouted("odd", "a", "odd from a", 2), Unrouted("odd", "b", "odd from b")),
        "overspent": ("usd: 9 used, at most 1",),
    }
    found = outcome_of(stored(MESH, **facts))
    assert found is not None
    row = summary_of_outcome(*found)
    assert (row.state, row.starved, row.unrouted, row.overspent) == ("partial", ("ship", "pack"), ("odd",), ("usd",))


def test_a_run_is_summed_up_from_its_history_the_same_way() -> None:
    play = Playbook(MESH).let(requested(run_id="run-4"))
    assert play.last is not None
    history = History(MESH, "run-4", partition=partition_of(b"run-4", MESH.inbox_partitions))
    history.take(record(play.last))
    row = summary_of(history)
    assert (row.state, row.unrouted, row.starved, row.paused) == ("stopped", ("ask",), (), False)


def test_what_is_no_outcome_is_none() -> None:
    good = stored(MESH)
    assert isinstance(good, StoredRecord)
    assert outcome_of(good._replace(value=b"{")) is None
    assert outcome_of(good._replace(value=orjson.dumps({"ending": 1}))) is None
