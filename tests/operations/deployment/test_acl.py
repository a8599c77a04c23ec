"""Which rights each service needs on Kafka; that they are exactly enough is tried in tests/live/test_kafka_acl.py."""

from mesh.app.wiring import topic_specs
from mesh.core.topology.loader import load
from mesh.operations.deployment.acl import SERVICES, Right, acl_commands, rights

MESH = load("""
mesh: {name: desk}
topics:
  asks: {ingress: ask, partitions: 1}
  answers: {egress: answer, partitions: 1}
agents:
  echo: {run: "x:y", on: ask, emits: answer}
""")


def of(service: str) -> dict[str, tuple[str, ...]]:
    return {right.name: right.operations for right in rights(MESH, [service])}


def test_the_operator_creates_every_topic_that_the_mesh_declares() -> None:
    creates = {name for name, operations in of("operator").items() if "Create" in operations}
    assert creates == {spec.name for spec in topic_specs(MESH)}


def test_every_process_sees_every_topic_that_it_checks_when_it_starts() -> None:
    for service in ("intake", "orchestrator", "worker"):
        seen = {name for name, operations in of(service).items() if {"Describe", "DescribeConfigs"} <= {*operations}}
        assert seen == {spec.name for spec in topic_specs(MESH)}


def test_only_services_that_must_write_to_topics_of_the_mesh_may() -> None:
    def writers(topic: str) -> set[str]:
        return {service for service in SERVICES if "Write" in of(service).get(topic, ())}

    assert writers("desk.inbox") == {"intake", "orchestrator", "worker", "client", "operator"}
    assert writers("desk.tasks.echo") == writers("desk.outcomes") - {"intake"} == {"orchestrator"}
    assert writers("desk.checkpoints") == writers("answers") == writers("desk.endings") == {"orchestrator"}
    assert writers("desk.control") == {"orchestrator", "operator"}
    assert writers("asks") == {"operator", "sender"}


def test_what_is_outside_has_no_right_to_the_topics_of_the_mesh_but_to_read_outcomes() -> None:
    assert of("sender") == {"asks": ("Write",)}
    assert of("receiver") == {"desk.outcomes": ("Read",), "answers": ("Read",)}


def test_groups_are_read_by_their_members_alone() -> None:
    groups = {
        (right.service, right.name) for right in rights(MESH) if right.kind == "group" and "Read" in right.operations
    }
    assert groups == {
        *(("intake", "desk.intake"), ("orchestrator", "desk.orchestrator")),
        *(("worker", "desk.echo"), ("monitor", "desk.monitor")),
        ("monitor", "desk.monitor-faust"),
    }


def test_rights_are_commands_one_for_all_topics_with_the_same_operations() -> None:
    given = [Right("s", "topic", "a", ("Read", "Write")), Right("s", "topic", "b", ("Read", "Write"))]
    given.append(Right("s", "group", "g", ("Read",)))
    assert [*acl_commands(given, {"s": "User:desk-s"}, "h:1")] == [
        "kafka-acls.sh --bootstrap-server h:1 --add --allow-principal 'User:desk-s'"
        " --operation Read --operation Write --topic a --topic b",
        "kafka-acls.sh --bootstrap-server h:1 --add --allow-principal 'User:desk-s' --operation Read --group g",
    ]
