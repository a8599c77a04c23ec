"""Kubernetes manifests of a mesh, from its topology and settings.

There is one Deployment for each service, and one for the workers of each agent: the lag of their own group scales them.
For KEDA there is one ScaledObject for each agent. No cluster or broker is asked.

Every process of a Deployment serves its health and metrics on one port. An outage of the log fails no liveness probe: a
restart would not help. Manifests contain no passwords: pods read them from a Secret whose keys are the names of the
settings in the environment.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from hashlib import sha256
from math import ceil
from pathlib import Path
from typing import Any, Final, NamedTuple

from mesh.core.errors import ConfigInvalid
from mesh.core.redaction import mask
from mesh.core.topology.model import AgentSpec, Topology
from mesh.settings import DEFAULT, ENV_PREFIX, Loaded, Settings

Manifest = dict[str, Any]

APP: Final = "agent-mesh"
USER: Final = 10_001
"""The user of the image (Dockerfile)."""
NAME_CHARS_MAX: Final = 52
"""Limit of object names; Deployments, Jobs and KEDA append to them, up to 63 characters."""
TLS_FOLDER: Final = "/etc/mesh/kafka"
TLS_FILES: Final = ("ssl_cafile", "ssl_certfile", "ssl_keyfile")
SECRETS: Final = ("sasl_plain_username", "sasl_plain_password", "ssl_password")
"""Kafka settings in the Secret. The user name is one, because KEDA reads it from nowhere else."""
GRACE_MARGIN_S: Final = 15
"""Time between draining and SIGKILL, to write a checkpoint, commit offsets and leave groups."""
STANDBY: Final = 2
"""Processes of a service that has to survive the loss of a machine."""
LAG_OF_LANES: Final = 2
"""Lag per lane of a worker process above which another one is started. Lag includes tasks in work, because a task is
committed when it is done: one per lane is a busy worker, and one more is a queue."""
HTTP_PORT: Final = 9464
"""The port that OpenTelemetry names for metrics of Prometheus."""
PROBE_EVERY_S: Final = 10
START_S_MAX: Final = 300
"""Time to import agents, before the port is open."""
KAFKA_VERSION: Final = "2.8.0"
"""Protocol version for KEDA, whose default is too old for Kafka 4."""
SASL_OF: Final = {"PLAIN": "plaintext", "SCRAM-SHA-256": "scram_sha256", "SCRAM-SHA-512": "scram_sha512"}
KEDA_TLS: Final = (
    ("ssl_cafile", "ca"),
    ("ssl_certfile", "cert"),
    ("ssl_keyfile", "key"),
    ("ssl_password", "keyPassword"),
)
_NO_NAME = re.compile(r"[^a-z0-9]+")


class ManifestOptions(NamedTuple):
    """Options of manifests that do not follow from the topology and settings."""

    image: str = APP
    namespace: str = ""
    """Empty: the namespace given to `kubectl`."""
    secret: str = APP
    """Name of the Secret with passwords and TLS files."""
    replicas_min: int = 1
    """Workers of each agent at least; 0: none while there are no tasks."""
    replicas_max: int | None = None
    """Workers of each agent at most; None: the number of its partitions. More would be idle."""


def k8s(topology: Topology, loaded: Loaded, options: ManifestOptions, agents: Iterable[str] = ()) -> Iterator[Manifest]:
    """Yield the Job that creates topics, and the Deployments; with `agents` only those of their workers.

    Workers have no number of replicas, so applying them again does not undo scaling by KEDA or by hand.
    """
    _check(loaded.settings)
    named = list(agents)
    if not named:
        yield _topics(topology, loaded, options)
        standby = min(STANDBY, topology.inbox_partitions)
        # One version after the other: a new one must not fold the decisions of an older one, so all old processes
        # write their checkpoints first.
        yield _deployment(topology, loaded, options, "orchestrator", replicas=standby, strategy={"type": "Recreate"})
        if topology.ingress:
            yield _deployment(topology, loaded, options, "intake", replicas=STANDBY)
    for agent in named or topology.agents:
        yield _deployment(topology, loaded, options, "worker", agent=topology.agents[agent])


def keda(
    topology: Topology, loaded: Loaded, options: ManifestOptions, agents: Iterable[str] = ()
) -> Iterator[Manifest]:
    """Yield one ScaledObject for each agent, and KEDA's authentication at the broker. Raises ConfigInvalid for invalid
    bounds."""
    _check(loaded.settings)
    partitions = topology.inbox_partitions
    most = partitions if options.replicas_max is None else options.replicas_max
    if most > partitions or most < max(1, options.replicas_min):
        raise ConfigInvalid(
            f"invalid maximum of {most} workers of an agent",
            where="mesh export keda",
            expected=f"{max(1, options.replicas_min)} to {partitions}, since a task topic has {partitions} partitions",
            remedy="Leave --max out; one partition is read by one worker, more would be idle",
        )
    protocol = loaded.settings.kafka.get("security_protocol", "PLAINTEXT")
    if protocol != "PLAINTEXT":
        yield _authentication(topology, loaded.settings, options, protocol)
    for agent in list(agents) or topology.agents:
        yield _scaled_object(topology, loaded.settings, options, topology.agents[agent], most)


def secret_keys(settings: Settings) -> list[str]:
    """Return the keys that the Secret must have: names of settings in the environment, and of TLS files."""
    keys = [_variable("board")] if mask(settings.board) != settings.board else []
    keys += [_variable("kafka", name) for name in SECRETS if name in settings.kafka]
    return keys + [name for name in TLS_FILES if name in settings.kafka]


def object_name(*words: str) -> str:
    """Return a valid Kubernetes name: small letters, digits and hyphens. If more than `_` was replaced, or the name was
    cut, a part of a hash makes it unique."""
    plain = "-".join(words)
    name = _NO_NAME.sub("-", plain.lower()).strip("-")
    return name if name == plain.replace("_", "-") and len(name) <= NAME_CHARS_MAX else _unique_name(name, plain)


def _unique_name(name: str, plain: str) -> str:
    return f"{name[: NAME_CHARS_MAX - 7].rstrip('-')}-{sha256(plain.encode()).hexdigest()[:6]}"


def _mesh(topology: Topology) -> str:
    """Return the mesh as part of names. A part of a hash distinguishes the meshes `a_b` and `a-b`, and `a-worker`
    with an agent `b` from the mesh `a` with an agent `worker-b`."""
    name = object_name(topology.name)
    alike = "_" in topology.name or "-worker" in topology.name
    return _unique_name(name, topology.name) if alike and name == topology.name.replace("_", "-") else name


def _agent(topology: Topology, agent: str) -> str:
    """Return the agent as part of names, unique even if `a_b` and `a-b` are both agents."""
    name = object_name(agent)
    twins = [other for other in topology.agents if object_name(other) == name]
    return name if len(twins) == 1 else _unique_name(name, agent)


# ------------------------------------------------------------------------------------------------------------ parts


def _check(settings: Settings) -> None:
    if not settings.log.startswith("kafka:"):
        raise ConfigInvalid(
            "machines cannot share an embedded file",
            where="mesh export",
            expected="kafka://HOST:PORT",
            got=settings.log,
            remedy="Name the broker as the cluster knows it: --log kafka://kafka:9092 --board redis://redis:6379/0",
        )
    if not settings.board.startswith(("redis:", "rediss:")):
        raise ConfigInvalid(
            "no board is set that machines can share",
            where="mesh export",
            expected="redis://HOST:PORT",
            got=settings.board or "nothing",
            remedy="Name it as the cluster knows it: --board redis://redis:6379/0",
        )
    for name, remedy in (("ssl_capath", "Use ssl_cafile"), ("sasl_kerberos_service_name", "Use SCRAM or TLS")):
        if name in settings.kafka:
            raise ConfigInvalid(f"{name} cannot be put into a manifest", where="mesh export", remedy=remedy)
    if settings.kafka.get("sasl_mechanism") == "GSSAPI":
        raise ConfigInvalid("GSSAPI cannot be put into a manifest", where="mesh export", remedy="Use SCRAM or TLS")


def _variable(*names: str) -> str:
    return ENV_PREFIX + "__".join(names).upper()


def _metadata(topology: Topology, options: ManifestOptions, name: str, component: str, agent: str = "") -> Manifest:
    namespace = {"namespace": options.namespace} if options.namespace else {}
    return {"name": name, **namespace, "labels": _labels(topology, component, agent)}


def _labels(topology: Topology, component: str, agent: str = "") -> dict[str, str]:
    labels = {
        "app.kubernetes.io/name": APP,
        "app.kubernetes.io/instance": _mesh(topology),
        "app.kubernetes.io/component": component,
    }
    return labels | ({f"{APP}/agent": _agent(topology, agent)} if agent else {})


def _environment(loaded: Loaded, options: ManifestOptions) -> list[Manifest]:
    """Return the environment: settings that differ from their defaults or have none, in the order of the settings."""
    settings = loaded.settings
    plain = {"log": settings.log, "board": settings.board, "topology": Path(settings.topology).name}
    for name, value in settings:
        if name not in plain and name != "kafka" and loaded.origins[name] != DEFAULT:
            plain[name] = str(value)
    values = {_variable(name): text for name, text in plain.items()}
    for name, text in settings.kafka.items():
        values[_variable("kafka", name)] = f"{TLS_FOLDER}/{name}" if name in TLS_FILES else text
    secret = set(secret_keys(settings))
    return [
        {"name": name, "valueFrom": {"secretKeyRef": {"name": options.secret, "key": name}}}
        if name in secret
        else {"name": name, "value": text}
        for name, text in values.items()
    ]


def _pod(loaded: Loaded, options: ManifestOptions, arguments: list[str], memory_mib: int) -> Manifest:
    """Return the specification of a pod with one container that runs `mesh ARGUMENTS`."""
    settings = loaded.settings
    files = [name for name in TLS_FILES if name in settings.kafka]
    mounts = [{"name": "tmp", "mountPath": "/tmp"}]
    volumes: list[Manifest] = [{"name": "tmp", "emptyDir": {}}]
    if files:
        mounts.append({"name": "kafka-tls", "mountPath": TLS_FOLDER, "readOnly": True})  # type: ignore[dict-item]
        items = [{"key": name, "path": name} for name in files]
        volumes.append({"name": "kafka-tls", "secret": {"secretName": options.secret, "items": items}})
    return {
        "terminationGracePeriodSeconds": grace_s(settings),
        "automountServiceAccountToken": False,
        # Else a Service called mesh would set variables that look like settings.
        "enableServiceLinks": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [
            {
                "name": "mesh",
                "image": options.image,
                "args": arguments,
                "env": _environment(loaded, options),
                "resources": {
                    "requests": {"cpu": "100m", "memory": f"{memory_mib // 4}Mi"},
                    "limits": {"memory": f"{memory_mib}Mi"},
                },
                "securityContext": {
                    "allowPrivilegeEscalation": False,
                    "readOnlyRootFilesystem": True,
                    "capabilities": {"drop": ["ALL"]},
                },
                "volumeMounts": mounts,
            }
        ],
        "volumes": volumes,
    }


def _observed(settings: Settings) -> Manifest:
    """Return the port and the probes of a container. A blocked event loop ends its process itself, before the probe."""

    def probe(path: str, failures: int) -> Manifest:
        asked = {"httpGet": {"path": path, "port": "http"}, "timeoutSeconds": 3}
        return {**asked, "periodSeconds": PROBE_EVERY_S, "failureThreshold": failures}

    blocked = ceil(settings.blocked_ms_max / 1_000 / PROBE_EVERY_S)
    return {
        "ports": [{"name": "http", "containerPort": HTTP_PORT}],
        "startupProbe": probe("/healthz", START_S_MAX // PROBE_EVERY_S),
        "livenessProbe": probe("/healthz", blocked + 3),
        "readinessProbe": probe("/readyz", 2),
    }


def grace_s(settings: Settings) -> int:
    """Return the seconds that a pod may take to end: it drains, cancels its agents and leaves its groups."""
    return ceil((settings.drain_timeout_ms + settings.cancel_grace_ms) / 1_000) + GRACE_MARGIN_S


def _topics(topology: Topology, loaded: Loaded, options: ManifestOptions) -> Manifest:
    """Return the Job that creates topics. Another topology needs another Job, because a Job cannot be changed."""
    name = object_name(_mesh(topology), "topics", topology.digest[:8])
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": _metadata(topology, options, name, "topics"),
        "spec": {
            "backoffLimit": 6,
            "ttlSecondsAfterFinished": 300,
            "template": {
                "metadata": {"labels": _labels(topology, "topics")},
                "spec": {"restartPolicy": "OnFailure", **_pod(loaded, options, ["topics", "create"], 256)},
            },
        },
    }


def _deployment(
    topology: Topology,
    loaded: Loaded,
    options: ManifestOptions,
    service: str,
    *,
    agent: AgentSpec | None = None,
    replicas: int | None = None,
    strategy: Mapping[str, Any] | None = None,
) -> Manifest:
    name = "" if agent is None else agent.name
    labels = _labels(topology, service, name)
    arguments = ["up", service, *(["--agent", name] if name else []), "--http", f"0.0.0.0:{HTTP_PORT}"]
    pod = _pod(loaded, options, arguments, 1_024 if not name else 512)
    pod["containers"][0] |= _observed(loaded.settings)
    scraped = {"prometheus.io/scrape": "true", "prometheus.io/port": str(HTTP_PORT)}
    if replicas is not None:
        spread = {"maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "ScheduleAnyway"}
        pod["topologySpreadConstraints"] = [{**spread, "labelSelector": {"matchLabels": labels}}]
    rolling = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": _metadata(topology, options, _deployment_name(topology, service, name), service, name),
        "spec": {
            **({} if replicas is None else {"replicas": replicas}),
            "strategy": dict(strategy or rolling),
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels, "annotations": scraped}, "spec": pod},
        },
    }


def _deployment_name(topology: Topology, service: str, agent: str = "") -> str:
    """Return the name of a Deployment."""
    return object_name(_mesh(topology), service, *([_agent(topology, agent)] if agent else []))


def _authentication(topology: Topology, settings: Settings, options: ManifestOptions, protocol: str) -> Manifest:
    found = [("username", "sasl_plain_username"), ("password", "sasl_plain_password")] if "SASL" in protocol else []
    keys = [(parameter, _variable("kafka", name)) for parameter, name in found]
    for name, parameter in KEDA_TLS:
        if name in settings.kafka:
            keys.append((parameter, name if name in TLS_FILES else _variable("kafka", name)))
    return {
        "apiVersion": "keda.sh/v1alpha1",
        "kind": "TriggerAuthentication",
        "metadata": _metadata(topology, options, object_name(_mesh(topology), "kafka"), "keda"),
        "spec": {"secretTargetRef": [{"parameter": p, "name": options.secret, "key": key} for p, key in keys]},
    }


def _scaled_object(
    topology: Topology, settings: Settings, options: ManifestOptions, agent: AgentSpec, most: int
) -> Manifest:
    protocol = settings.kafka.get("security_protocol", "PLAINTEXT")
    metadata = {
        "bootstrapServers": settings.log.removeprefix("kafka:").removeprefix("//").rstrip("/"),
        "consumerGroup": topology.group(agent.name),
        "topic": topology.tasks(agent.name),
        "lagThreshold": str(LAG_OF_LANES * agent.lanes),
        "activationLagThreshold": "0",
        "offsetResetPolicy": "earliest",
        "allowIdleConsumers": "false",
        # Otherwise a task longer than KEDA's polling interval would count as no lag. A poison task does not persist: it
        # is given up after three starts.
        "excludePersistentLag": "false",
        "scaleToZeroOnInvalidOffset": "false",
        "ensureEvenDistributionOfPartitions": "true",
        "version": KAFKA_VERSION,
    }
    if "SASL" in protocol:
        metadata["sasl"] = SASL_OF[settings.kafka.get("sasl_mechanism", "PLAIN")]
    if protocol.endswith("SSL"):
        metadata["tls"] = "enable"
    trigger: Manifest = {"type": "kafka", "metadata": metadata}
    if protocol != "PLAINTEXT":
        trigger["authenticationRef"] = {"name": object_name(_mesh(topology), "kafka")}
    # Each started or stopped worker causes a rebalance: scale slowly, above all downwards.
    behavior = {"scaleUp": {"stabilizationWindowSeconds": 30}, "scaleDown": {"stabilizationWindowSeconds": 300}}
    deployed = _deployment_name(topology, "worker", agent.name)
    return {
        "apiVersion": "keda.sh/v1alpha1",
        "kind": "ScaledObject",
        "metadata": _metadata(topology, options, deployed, "keda", agent.name),
        "spec": {
            "scaleTargetRef": {"name": deployed},
            "pollingInterval": 15,
            "cooldownPeriod": 300,
            "minReplicaCount": options.replicas_min,
            "maxReplicaCount": most,
            "advanced": {"horizontalPodAutoscalerConfig": {"behavior": behavior}},
            "triggers": [trigger],
        },
    }
