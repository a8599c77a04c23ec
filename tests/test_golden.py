"""Files of an earlier version load: tests/golden holds what version 0.1.0 wrote. They are never written again."""

from pathlib import Path

import orjson
import pytest

from mesh.core.dead_letters.letter import letter_from, letter_json
from mesh.core.errors import Conflict
from mesh.core.state.checkpoint import CheckpointLoader
from mesh.core.state.partition_state import Partition
from mesh.core.task.fault_injection import Broken
from mesh.core.task.result import fault_of
from mesh.core.topology.serialization import pinned_topology

GOLDEN = Path(__file__).parent / "golden"


def test_a_pinned_topology_loads() -> None:
    mesh = pinned_topology((GOLDEN / "topology.json").read_bytes(), "f" * 16)
    assert (mesh.name, mesh.digest, mesh.inbox_partitions) == ("golden", "f" * 16, 3)
    assert (mesh.limits.deadline_ms, mesh.limits.depth_max) == (20_000, 12)
    plan, join = mesh.agents["plan"], mesh.agents["join"]
    assert plan.retry.final == ("schema", "ValueError", "mesh.core.errors.Conflict", "mesh.core.chaos.Broken")
    assert plan.breaker is not None
    assert (plan.breaker.failures_max, plan.fallback) == (3, ("spare",))
    assert join.when is not None
    assert join.when.holds({"part": {"n": 2}, "other": {"name": "a"}})
    assert not join.when.holds({"part": {"n": 2}, "other": {"name": "c"}})


def restored() -> Partition:
    mesh = pinned_topology((GOLDEN / "checkpoint-topology.json").read_bytes(), "0" * 16)
    loading = CheckpointLoader()
    for chunk in orjson.loads((GOLDEN / "checkpoint.json").read_bytes()):
        loading.feed(chunk.encode())
    return loading.partition(mesh)


def test_a_checkpoint_loads() -> None:
    state = restored()
    assert (state.offset, sorted(state.runs), sorted(state.ended)) == (18, ["run-1", "run-2"], ["run-3"])
    waiting = {id: [task.held for task in state.runs[id].open.values() if task.held] for id in state.runs}
    assert [(held.data, held.due_ms) for held in waiting["run-1"]] == [
        (b'{"n":0}', 1_795_176_002_627),
        (b'{"n":0}', 1_795_176_000_101),
    ]
    assert {id: len(held) for id, held in waiting.items()} == {"run-1": 2, "run-2": 2}
    first, second = state.runs["run-1"], state.runs["run-2"]
    assert [(failure.agent, failure.code) for failure in first.failures] == [("a0", "boom")]
    assert [refusal.code for refusal in (*first.refusals, *second.refusals)] == [
        "budget_usd",
        "fanout",
        "undeclared_type",
    ]


@pytest.mark.parametrize("line", (GOLDEN / "dead-letters.jsonl").read_bytes().splitlines())
def test_an_exported_dead_letter_loads_and_is_exported_the_same(line: bytes) -> None:
    letter, changed = letter_from(orjson.loads(line))
    assert not changed
    assert orjson.dumps(letter_json(letter)) == line


def test_classes_of_errors_have_the_names_that_letters_and_topologies_of_earlier_versions_tell() -> None:
    lines = (GOLDEN / "dead-letters.jsonl").read_bytes().splitlines()
    told = {letter_from(orjson.loads(line))[0].cls for line in lines}
    assert {fault_of(error).cls for error in (Broken("x"), Conflict("x", expected="1", current="2"))} <= told
