"""`mesh export`: manifests on stdout, nothing else there."""

import yaml

from tests.cli.conftest import Cli

WHERE = ("--log", "kafka://kafka:9092", "--board", "redis://redis:6379/0")


def test_the_manifests_are_yaml_that_says_the_same_as_the_json(project: Cli) -> None:
    for what in ("k8s", "keda"):
        done = project("export", what, *WHERE)
        assert done.code == 0, done.err
        documents = list(yaml.safe_load_all(done.out))
        assert documents == project("export", what, *WHERE, "--json").rows
        assert {one["kind"] for one in documents} == ({"Job", "Deployment"} if what == "k8s" else {"ScaledObject"})
        assert done.out.startswith(f"# mesh export {what}: made from desk, topology ")


def test_agents_that_are_named_are_the_only_ones(project: Cli) -> None:
    for what, kind in (("k8s", "Deployment"), ("keda", "ScaledObject")):
        rows = project("export", what, "runner", "greeter", *WHERE, "--json").rows
        assert [(one["kind"], one["metadata"]["labels"]["agent-mesh/agent"]) for one in rows] == [
            (kind, "greeter"),
            (kind, "runner"),
        ]


def test_options_are_written_into_the_manifests(project: Cli) -> None:
    more = ("--image", "registry.example/desk:7", "--namespace", "desks")
    rows = project("export", "k8s", *WHERE, *more, "--json").rows
    assert {one["metadata"]["namespace"] for one in rows} == {"desks"}
    assert {one["spec"]["template"]["spec"]["containers"][0]["image"] for one in rows} == {"registry.example/desk:7"}
    (row,) = project("export", "keda", "greeter", *WHERE, "--min", "0", "--max", "2", "--json").rows
    assert (row["spec"]["minReplicaCount"], row["spec"]["maxReplicaCount"]) == (0, 2)


def test_the_keys_of_the_secret_are_said_and_its_values_never(project: Cli) -> None:
    done = project("export", "k8s", "--log", "kafka://kafka:9092", "--board", "redis://:hunter2@redis:6379/0")
    assert done.err == "the Secret 'agent-mesh' must have the keys MESH_BOARD\n"
    assert "hunter2" not in done.out
    assert done.out.count("name: MESH_BOARD") == done.out.count("key: MESH_BOARD") > 0


def test_mistakes_are_exit_codes_and_say_what_to_do(project: Cli) -> None:
    done = project("export", "k8s")
    assert (done.code, done.out) == (2, "")
    assert "--log kafka://kafka:9092" in done.err
    done = project("export", "keda", "greter", *WHERE)
    assert done.code == 3
    assert "Did you mean 'greeter'?" in done.err
    done = project("export", "keda", "--max", "3", *WHERE)
    assert done.code == 2
    assert "2 partitions" in done.err


def test_the_rights_on_kafka_are_commands_and_rows(project: Cli) -> None:
    done = project("export", "acl", "intake", "--log", "kafka://kafka:9092")
    assert done.code == 0, done.err
    first, *commands = done.out.splitlines()
    assert first.startswith("# mesh export acl: made from desk, topology ")
    assert all(line.startswith("kafka-acls.sh --bootstrap-server kafka:9092 --add ") for line in commands)
    assert all("--allow-principal 'User:desk-intake'" in line for line in commands)
    rows = project("export", "acl", "intake", "--principal", "User:CN={service}", "--json").rows
    assert {row["principal"] for row in rows} == {"User:CN=intake"}
    assert {"service", "kind", "name", "operations", "principal"} == rows[0].keys()
    assert {row["service"] for row in project("export", "acl", "--json").rows} >= {"worker", "client", "operator"}


def test_an_unknown_service_is_reported(project: Cli) -> None:
    done = project("export", "acl", "orchestrater")
    assert done.code == 3
    assert "Did you mean 'orchestrator'?" in done.err
