"""Manifests against the schemas of Kubernetes and KEDA, the command line and the settings: no cluster needed."""

import asyncio
import json
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from mesh.app.endpoints import Endpoints
from mesh.app.process import SERVICES
from mesh.app.wiring import load_topology
from mesh.core.address import http_address
from mesh.core.errors import ConfigInvalid
from mesh.core.topology.loader import load as topology_of
from mesh.operations.deployment.manifests import (
    GRACE_MARGIN_S,
    NAME_CHARS_MAX,
    TLS_FILES,
    Manifest,
    ManifestOptions,
    k8s,
    keda,
    object_name,
    secret_keys,
)
from mesh.settings import Loaded, load
from mesh.testing import MeshTest
from tests.command_line import parses

ROOT = Path(__file__).parents[3]
TOPOLOGY = load_topology(str(ROOT / "topics.yaml"))
KEDA = json.loads((ROOT / "tests/data/keda-crds.json").read_text())
KUBERNETES = ("1.30.0", "1.34.0", "1.37.0")
PLAIN = {"MESH_LOG": "kafka://one:9092,two:9092", "MESH_BOARD": "redis://redis:6379/0"}
SASL = {
    "MESH_LOG": "kafka://kafka:9093",
    "MESH_BOARD": "rediss://:hunter2@redis:6379/0",
    "MESH_DRAIN_TIMEOUT_MS": "31000",
    "MESH_SYNCHRONOUS": "FULL",
    "MESH_KAFKA__SECURITY_PROTOCOL": "SASL_SSL",
    "MESH_KAFKA__SASL_MECHANISM": "SCRAM-SHA-512",
    "MESH_KAFKA__SASL_PLAIN_USERNAME": "ann",
    "MESH_KAFKA__SASL_PLAIN_PASSWORD": "hunter3",
    "MESH_KAFKA__SSL_CAFILE": "ca.pem",
    "MESH_KAFKA__SSL_CERTFILE": "cert.pem",
    "MESH_KAFKA__SSL_KEYFILE": "key.pem",
    "MESH_KAFKA__SSL_PASSWORD": "hunter4",
}


def loaded(environ: dict[str, str]) -> Loaded:
    return load({}, environ=environ, directory=Path("/"))


def every(environ: dict[str, str], wishes: ManifestOptions = ManifestOptions()) -> list[Manifest]:  # noqa: B008 - a constant
    return [*k8s(TOPOLOGY, loaded(environ), wishes), *keda(TOPOLOGY, loaded(environ), wishes)]


def of_kind(kind: str, manifests: list[Manifest]) -> list[Manifest]:
    return [one for one in manifests if one["kind"] == kind]


def pod(manifest: Manifest) -> dict[str, Any]:
    found = manifest["spec"]["template"]["spec"]
    assert isinstance(found, dict)
    return found


def closed(schema: Any) -> Any:
    """The schema, but with no field that it does not name: Kubernetes drops those in silence."""
    if isinstance(schema, list):
        return [closed(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    found = {name: closed(part) for name, part in schema.items()}
    if isinstance(schema.get("properties"), dict) and schema.get("type") == "object":
        found["additionalProperties"] = False
    return found


def check(manifest: Manifest) -> None:
    """Raises what is wrong with it."""
    if manifest["apiVersion"].startswith("keda.sh/"):
        jsonschema.Draft202012Validator(closed(KEDA["schemas"][manifest["kind"]])).validate(manifest)
    else:
        for version in KUBERNETES:
            kubernetes_validate.validate(manifest, version, strict=True)


@pytest.mark.parametrize("environ", [PLAIN, SASL], ids=["plain", "sasl"])
def test_every_manifest_fits_the_schema_of_its_kind(environ: dict[str, str]) -> None:
    manifests = every(environ, ManifestOptions(namespace="desks"))
    assert {one["kind"] for one in manifests} >= {"Job", "Deployment", "ScaledObject"}
    for manifest in manifests:
        check(manifest)


def test_a_field_that_no_schema_names_is_noticed() -> None:
    manifests = every(PLAIN)
    for kind in ("Deployment", "ScaledObject"):
        broken = of_kind(kind, manifests)[0]
        broken["spec"]["replica"] = 2
        with pytest.raises(Exception, match="replica"):
            check(broken)


def test_every_service_is_a_deployment_and_every_agent_one_of_its_own() -> None:
    deployed = {tuple(pod(one)["containers"][0]["args"][:2]) for one in of_kind("Deployment", every(PLAIN))}
    assert deployed == {("up", service) for service in SERVICES}
    workers = [pod(one)["containers"][0]["args"] for one in of_kind("Deployment", every(PLAIN))]
    assert [args[3] for args in workers if args[1] == "worker"] == list(TOPOLOGY.agents)


def test_commands_are_understood_by_the_command_line() -> None:
    for manifest in [*of_kind("Deployment", every(PLAIN)), *of_kind("Job", every(PLAIN))]:
        assert parses(pod(manifest)["containers"][0]["args"])


def test_what_was_set_goes_along_and_secrets_do_not_stand_in_it() -> None:
    manifests = every(SASL)
    assert "hunter" not in yaml.safe_dump(manifests)
    container = pod(of_kind("Deployment", manifests)[0])["containers"][0]
    plain = {one["name"]: one["value"] for one in container["env"] if "value" in one}
    secret = {one["name"]: one["valueFrom"]["secretKeyRef"]["key"] for one in container["env"] if "value" not in one}
    assert set(plain) | set(secret) == {*SASL, "MESH_TOPOLOGY"}
    assert all(name == key for name, key in secret.items())
    files = {item["key"] for v in pod(of_kind("Deployment", manifests)[0])["volumes"] for item in items_of(v)}
    assert {*secret.values(), *files} == set(secret_keys(loaded(SASL).settings))
    again = load({}, environ={**plain, **dict.fromkeys(secret, "x")}, directory=Path("/")).settings
    assert (again.drain_timeout_ms, again.synchronous, again.log) == (31_000, "FULL", "kafka://kafka:9093")
    assert again.kafka["ssl_cafile"] == "/etc/mesh/kafka/ssl_cafile"


def items_of(volume: dict[str, Any]) -> list[dict[str, str]]:
    return list(volume.get("secret", {}).get("items", []))


def test_tls_files_lie_where_the_settings_say() -> None:
    spec = pod(of_kind("Deployment", every(SASL))[0])
    (mount,) = [one for one in spec["containers"][0]["volumeMounts"] if one["name"] == "kafka-tls"]
    (volume,) = [one for one in spec["volumes"] if one["name"] == "kafka-tls"]
    env = {one["name"]: one.get("value") for one in spec["containers"][0]["env"]}
    for name in TLS_FILES:
        assert env[f"MESH_KAFKA__{name.upper()}"] == f"{mount['mountPath']}/{name}"
        assert {"key": name, "path": name} in volume["secret"]["items"]


@pytest.mark.parametrize("environ", [PLAIN, SASL], ids=["plain", "sasl"])
def test_a_pod_may_drain_before_it_is_killed(environ: dict[str, str]) -> None:
    settings = loaded(environ).settings
    for manifest in of_kind("Deployment", every(environ)):
        assert pod(manifest)["terminationGracePeriodSeconds"] * 1_000 > settings.drain_timeout_ms + 10_000
    assert GRACE_MARGIN_S >= 10


def test_pods_have_no_rights_that_they_do_not_need() -> None:
    for manifest in [*of_kind("Deployment", every(PLAIN)), *of_kind("Job", every(PLAIN))]:
        spec, container = pod(manifest), pod(manifest)["containers"][0]
        assert spec["securityContext"]["runAsNonRoot"]
        assert f"--uid {spec['securityContext']['runAsUser']}" in (ROOT / "Dockerfile").read_text()
        assert spec["automountServiceAccountToken"] is False
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert container["securityContext"]["readOnlyRootFilesystem"]


def test_probes_ask_what_a_process_answers() -> None:
    answers = Endpoints(TOPOLOGY).answers
    blocked_s = loaded(PLAIN).settings.blocked_ms_max / 1_000
    for manifest in of_kind("Deployment", every(PLAIN)):
        container = pod(manifest)["containers"][0]
        (port,) = container["ports"]
        option = container["args"].index("--http")
        assert http_address(container["args"][option + 1]) == ("0.0.0.0", port["containerPort"])
        probes = {name: container[f"{name}Probe"] for name in ("startup", "liveness", "readiness")}
        paths = {name: probe["httpGet"]["path"] for name, probe in probes.items()}
        assert paths == {"startup": "/healthz", "liveness": "/healthz", "readiness": "/readyz"}
        assert set(paths.values()) <= set(answers)
        assert all(probe["httpGet"]["port"] == port["name"] for probe in probes.values())
        liveness = probes["liveness"]
        assert liveness["periodSeconds"] * liveness["failureThreshold"] > blocked_s
        noted = manifest["spec"]["template"]["metadata"]["annotations"]
        assert noted["prometheus.io/port"] == str(port["containerPort"])
    (job,) = of_kind("Job", every(PLAIN))
    assert "livenessProbe" not in pod(job)["containers"][0]


def test_one_version_of_the_orchestrator_ends_before_the_next_begins() -> None:
    strategies = {
        pod(one)["containers"][0]["args"][1]: one["spec"]["strategy"]["type"]
        for one in of_kind("Deployment", every(PLAIN))
    }
    assert strategies == {"orchestrator": "Recreate", "intake": "RollingUpdate", "worker": "RollingUpdate"}


def test_workers_are_scaled_by_the_lag_of_their_own_group_up_to_its_partitions() -> None:
    manifests = every(PLAIN)
    deployed = {one["metadata"]["name"]: one for one in of_kind("Deployment", manifests)}
    scaled = of_kind("ScaledObject", manifests)
    assert len(scaled) == len(TOPOLOGY.agents)
    for one, (agent, declared) in zip(scaled, TOPOLOGY.agents.items(), strict=True):
        target = deployed[one["spec"]["scaleTargetRef"]["name"]]
        assert pod(target)["containers"][0]["args"][2:4] == ["--agent", agent]
        assert "replicas" not in target["spec"], "applying it again would undo what KEDA decided"
        (trigger,) = one["spec"]["triggers"]
        assert trigger["type"] == "kafka"
        assert trigger["metadata"]["topic"] == TOPOLOGY.tasks(agent)
        assert trigger["metadata"]["bootstrapServers"] == "one:9092,two:9092"
        assert int(trigger["metadata"]["lagThreshold"]) > declared.lanes, "what is in work is lag too"
        assert one["spec"]["maxReplicaCount"] == TOPOLOGY.inbox_partitions


@pytest.mark.parametrize("environ", [PLAIN, SASL], ids=["plain", "sasl"])
def test_keda_knows_every_parameter_of_the_trigger(environ: dict[str, str]) -> None:
    known = KEDA["kafka_trigger"]
    manifests = every(environ)
    for one in of_kind("ScaledObject", manifests):
        (trigger,) = one["spec"]["triggers"]
        assert set(trigger["metadata"]) <= set(known["metadata"])
        assert all(isinstance(value, str) for value in trigger["metadata"].values())
        found = of_kind("TriggerAuthentication", manifests)
        assert ("authenticationRef" in trigger) == bool(found)
        for auth in found:
            assert trigger["authenticationRef"]["name"] == auth["metadata"]["name"]
            assert {one["parameter"] for one in auth["spec"]["secretTargetRef"]} <= set(known["auth"])
            keys = {one["key"] for one in auth["spec"]["secretTargetRef"]}
            assert keys == set(secret_keys(loaded(environ).settings)) - {"MESH_BOARD"}


async def test_the_group_and_topic_are_those_that_the_worker_commits_for() -> None:
    path = str(ROOT / "tests/cli/project/topics.yaml")
    topology = load_topology(path)
    (scaled,) = keda(topology, loaded(PLAIN), ManifestOptions(), ["greeter"])
    on_progress = scaled["spec"]["triggers"][0]["metadata"]
    async with MeshTest(path) as mesh:
        await (await mesh.publish("hello", {"name": "Ann"})).outcome()
        async with asyncio.timeout(10):
            while not await mesh.log.committed(on_progress["consumerGroup"], on_progress["topic"]):  # noqa: ASYNC110 - a log's
                await asyncio.sleep(0.005)


@pytest.mark.parametrize(("least", "most", "right"), [(0, 6, True), (1, 7, False), (3, 2, False), (2, 2, True)])
def test_bounds_that_cannot_be_kept_are_refused(least: int, most: int, right: bool) -> None:
    made = keda(TOPOLOGY, loaded(PLAIN), ManifestOptions(replicas_min=least, replicas_max=most), ["fraud"])
    if right:
        (one,) = made
        assert (one["spec"]["minReplicaCount"], one["spec"]["maxReplicaCount"]) == (least, most)
    else:
        with pytest.raises(ConfigInvalid, match="6 partitions"):
            list(made)


@pytest.mark.parametrize(
    ("environ", "text"),
    [
        ({}, "machines cannot share an embedded file"),
        ({"MESH_LOG": "kafka://kafka:9092"}, "no board is set"),
        ({**PLAIN, "MESH_KAFKA__SECURITY_PROTOCOL": "SASL_SSL", "MESH_KAFKA__SASL_MECHANISM": "GSSAPI"}, "GSSAPI"),
        ({**PLAIN, "MESH_KAFKA__SSL_CAPATH": "/ca"}, "ssl_capath"),
    ],
)
def test_what_no_cluster_could_run_is_refused(environ: dict[str, str], text: str) -> None:
    for make in (k8s, keda):
        with pytest.raises(ConfigInvalid, match=text):
            list(make(TOPOLOGY, loaded(environ), ManifestOptions()))


def test_names_are_such_as_kubernetes_takes_and_different_agents_have_different_ones() -> None:
    assert object_name("desks", "worker", "fraud_rules") == "desks-worker-fraud-rules"
    long = [object_name("Desk.One", "worker", "a" * 63 + end) for end in ("a", "b")]
    assert len(set(long)) == 2
    assert all(len(name) <= NAME_CHARS_MAX and name.replace("-", "").isalnum() for name in long)
    twins = "mesh: {name: m, prefix: mesh}\ntopics: {in: {ingress: a.b}}\nagents:\n" + "".join(
        f'  {name}: {{run: "x:y", on: a.b}}\n' for name in ("a_b", "a-b", "c")
    )
    manifests = list(k8s(topology_of(twins), loaded(PLAIN), ManifestOptions()))
    names = [one["metadata"]["name"] for one in manifests]
    assert len(set(names)) == len(names)
    labels = [str(one["spec"]["selector"]["matchLabels"]) for one in of_kind("Deployment", manifests)]
    assert len(set(labels)) == len(labels), "a Deployment owns only its own pods"


@pytest.mark.parametrize(
    ("one", "other"), [(("shop_q", "a"), ("shop-q", "a")), (("shop-worker", "a"), ("shop", "worker-a"))]
)
def test_two_meshes_in_one_namespace_have_no_object_in_common(one: tuple[str, str], other: tuple[str, str]) -> None:
    names, instances = set[tuple[str, str]](), set[str]()
    for mesh, agent in (one, other):
        text = (
            f"mesh: {{name: {mesh}}}\ntopics: {{in: {{ingress: a.b}}}}\nagents: {{{agent}: {{run: 'x:y', on: a.b}}}}\n"
        )
        topology = topology_of(text)
        found = [*k8s(topology, loaded(PLAIN), ManifestOptions()), *keda(topology, loaded(PLAIN), ManifestOptions())]
        of_mesh = {(manifest["kind"], manifest["metadata"]["name"]) for manifest in found}
        assert len(of_mesh) == len(found)
        assert not names & of_mesh
        names |= of_mesh
        instances |= {manifest["metadata"]["labels"]["app.kubernetes.io/instance"] for manifest in found}
    assert len(instances) == 2
