"""The mesh as data: names of its own topics, values that cannot be changed."""

import dataclasses
import pickle

import pytest

from mesh.core.expression.condition import parse
from mesh.core.topology.model import AgentSpec, Limits, Retry, Row, TopicRule, Topology
from tests import builders
from tests.builders import agent


def topology(prefix: str = "mesh") -> Topology:
    return Topology("desk", "0" * 16, Limits(), {}, {}, prefix)


@pytest.mark.parametrize("prefix", ["mesh", "eu.desk"])
def test_the_meshs_own_topics_begin_with_its_prefix(prefix: str) -> None:
    mesh = topology(prefix)
    own = (mesh.inbox, mesh.outcomes, mesh.dead, mesh.tasks("triage"))
    assert own == (f"{prefix}.inbox", f"{prefix}.outcomes", f"{prefix}.dead", f"{prefix}.tasks.triage")


@pytest.mark.parametrize("value", [Limits(), Retry(), AgentSpec("a", "m:f", (), ()), TopicRule("t"), topology()])
def test_nothing_in_a_topology_can_be_changed(value: object) -> None:
    assert dataclasses.is_dataclass(value)
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(value, dataclasses.fields(value)[0].name, "other")


def test_a_topology_can_be_sent_to_another_process() -> None:
    spec = AgentSpec("a", "m:f", ("x",), (), when=parse("x.n > 1", ["x"]))
    mesh = dataclasses.replace(topology(), agents={"a": spec}, rows={"x": (Row(spec),)})
    again = pickle.loads(pickle.dumps(mesh))
    assert again == mesh
    assert again.rows["x"][0].agent.when.holds({"x": {"n": 2}})


def test_an_agent_gets_its_types_and_those_of_agents_whose_fallback_it_is() -> None:
    mesh = builders.topology(
        a=agent("x | y -> z", fallback=("c",)), b=agent("y -> z", fallback=("c",)), c=agent("w ->")
    )
    assert mesh.input_types("c") == ("w", "x", "y")
    assert mesh.input_types("b") == ("y",)
