from pathlib import Path

import pytest

from mesh.core.task.agent import Agent
from tests.agents.walk import FILES, PROJECT, example_mesh

TOPOLOGY, AGENTS = example_mesh()


@pytest.mark.parametrize("name", sorted(TOPOLOGY.agents))
def test_a_function_takes_the_types_that_topics_yaml_sends_it(name: str) -> None:
    assert sorted(AGENTS[name].consumes) == sorted(TOPOLOGY.input_types(name))


@pytest.mark.parametrize("name", sorted(TOPOLOGY.agents))
def test_a_join_has_a_parameter_for_each_type_and_others_have_one(name: str) -> None:
    spec = TOPOLOGY.agents[name]
    assert len(AGENTS[name].parameters) == (len(spec.on) if spec.join else 1)


@pytest.mark.parametrize("name", sorted(TOPOLOGY.agents))
def test_a_function_emits_what_topics_yaml_says(name: str) -> None:
    assert sorted(AGENTS[name].emits or ()) == sorted(TOPOLOGY.agents[name].emits)


def test_every_file_of_an_example_app_is_wired_or_holds_its_events() -> None:
    wired = {spec.run.partition(":")[0] for spec in TOPOLOGY.agents.values()}
    files = {
        ".".join(path.relative_to(PROJECT).with_suffix("").parts)
        for path in FILES
        if path.stem not in ("__init__", "events")
    }
    assert files == wired


@pytest.mark.parametrize("path", FILES, ids=lambda p: f"{p.parent.name}-{p.stem}")
def test_one_file_holds_one_agent_at_most(path: Path) -> None:
    module = __import__(f"agents.{path.parent.name}.{path.stem}", fromlist=["*"])
    own = [v for v in vars(module).values() if isinstance(getattr(v, "__mesh_agent__", None), Agent)]
    assert len(own) == (path.stem not in ("__init__", "events"))


def test_every_limit_that_a_run_needs_is_declared() -> None:
    limits = TOPOLOGY.limits
    assert (limits.depth_max, limits.tasks_max, limits.visits_max, limits.deadline_ms) == (8, 32, 2, 600_000)
    assert all(topic.partitions == 6 for topic in TOPOLOGY.topics.values())


def test_both_conditions_of_a_pair_never_hold_together_and_never_fail_together() -> None:
    for one, other in (("triage", "observer"), ("fulfilment", "refusal")):
        first, second = TOPOLOGY.agents[one].when, TOPOLOGY.agents[other].when
        assert first is not None
        assert second is not None
        for event in ("issues", "push", "", None, 5, ["issues"]):
            for score in (0, 0.69, 0.7, 1):
                payloads = (
                    {"github.webhook": {"event": event}} if one == "triage" else {"fraud.scored": {"score": score}}
                )
                assert first.holds(payloads) != second.holds(payloads)
