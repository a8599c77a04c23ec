"""A topology that runs were opened under comes back as it was."""

from pathlib import Path

import orjson
import pytest

from mesh.core.topology.loader import load
from mesh.core.topology.serialization import pinned_bytes, pinned_topology
from tests.builders import agent, topology

RICH = """
mesh: {name: t, prefix: mesh, limits: {deadline: 20s, budget: {usd: 0.5}}}
topics: {asks: {ingress: ask, key: id}, answers: {egress: answer}}
agents:
  plan:  {run: "x:y", on: ask, emits: [part, other], retry: {attempts: 2, first: 20ms}}
  spare: {run: "x:y", on: ask, emits: part, visits_max: 2}
  join:  {run: "x:y", on: {all: [part, other]}, when: 'part.n < 3 and other.name in ["a", "b"]', emits: answer}
"""


def test_a_topology_comes_back_equal_with_conditions_that_decide_the_same() -> None:
    mesh = load(RICH)
    back = pinned_topology(pinned_bytes(mesh), mesh.digest)
    assert back == mesh
    for payloads in ({"part": {"n": 2}, "other": {"name": "a"}}, {"part": {"n": 2}, "other": {"name": "c"}}):
        before, after = mesh.agents["join"].when, back.agents["join"].when
        assert before is not None
        assert after is not None
        assert after.holds(payloads) == before.holds(payloads)


def test_the_meshes_of_this_project_come_back_equal() -> None:
    mesh = load((Path(__file__).parents[3] / "topics.yaml").read_text())
    assert pinned_topology(pinned_bytes(mesh), mesh.digest) == mesh


def test_a_condition_over_one_payload_stays_bound_to_none() -> None:
    mesh = topology(a=agent("ask -> done", when="total < 3 and ask.x == 1"))
    back = pinned_topology(pinned_bytes(mesh), mesh.digest)
    assert back.agents["a"].when == mesh.agents["a"].when


def test_it_bears_the_digest_it_was_kept_under() -> None:
    assert pinned_topology(pinned_bytes(load(RICH)), "f" * 16).digest == "f" * 16


def test_bytes_are_json_and_the_same_for_the_same_mesh() -> None:
    assert pinned_bytes(load(RICH)) == pinned_bytes(load(RICH))
    assert orjson.loads(pinned_bytes(load(RICH)))["format"] == 1


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"{}", b'{"format":2}', b'{"format":1,"fields":{},"topology":[]}'])
def test_what_is_no_topology_is_a_value_error(data: bytes) -> None:
    with pytest.raises(ValueError, match=r".+"):
        pinned_topology(data, "f" * 16)
