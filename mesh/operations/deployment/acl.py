"""Kafka access rights: for each service of a mesh its topics and groups, and the operations on them. Pure.

The mesh runs with exactly these rights. They are the trust boundary: a reader of a topic of the mesh trusts every
principal that may write there (docs/guide/security.md).
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Final, NamedTuple

from mesh.core.dead_letters.redrive_log import ledger_topic
from mesh.core.topology.model import FAUST_GROUP, FAUST_TABLE, SERVICE_GROUPS, Topology

TOPIC: Final = "topic"
GROUP: Final = "group"
READ: Final = "Read"
WRITE: Final = "Write"
DELETE: Final = "Delete"
CREATE: Final = "Create"
DESCRIBE: Final = "Describe"
DESCRIBE_CONFIGS: Final = "DescribeConfigs"
ALTER_CONFIGS: Final = "AlterConfigs"

SERVICES: Final[Mapping[str, str]] = {
    "intake": "`mesh up intake`",
    "orchestrator": "`mesh up orchestrator`",
    "worker": "`mesh up worker`, of all agents",
    "monitor": "`mesh up monitor`",
    "client": "`Mesh.connect` and `mesh publish`: may join any run, and cancel, pause and resume it",
    "operator": "every other command: `mesh topics`, `run`, `dead`, `board`, `stop`, `verify`",
    "reader": "commands that only read: `mesh run list` and `show`, `mesh verify`, `mesh replay`, `mesh run export`",
    "sender": "an upstream system: give each one only the ingress topics that are its own",
    "receiver": "a downstream system",
}
"""Every service, with the processes that it stands for."""


class Right(NamedTuple):
    """The operations of one service on one topic or group."""

    service: str
    kind: str
    """`topic` or `group`."""
    name: str
    operations: tuple[str, ...]
    """Names as kafka-acls.sh has them, sorted."""


def rights(topology: Topology, services: Iterable[str] = SERVICES) -> Iterator[Right]:
    """Yield the rights of these services, in a fixed order."""
    for service in services:
        wanted: dict[tuple[str, str], set[str]] = {}
        for kind, names, more in _wanted_rights(topology, service):
            for name in names:
                wanted.setdefault((kind, name), set()).update(more)
        for (kind, name), operations in wanted.items():
            yield Right(service, kind, name, tuple(sorted(operations)))


_Wanted = Iterator[tuple[str, Iterable[str], tuple[str, ...]]]


def _wanted_rights(topology: Topology, service: str) -> _Wanted:
    ingress = [rule.name for rule in topology.topics.values() if rule.ingress is not None]
    egress = [rule.name for rule in topology.topics.values() if rule.egress]
    tasks = [topology.tasks(agent) for agent in topology.agents]
    own = [
        *(topology.inbox, topology.outcomes, topology.dead, *tasks),
        *(topology.control, topology.endings, topology.topologies, ledger_topic(topology)),
        *(topology.checkpoints, topology.board, topology.clock, topology.windows),
    ]
    match service:
        case "intake":
            yield from _process(topology, own, [*ingress, *egress])
            yield TOPIC, ingress, (READ,)
            yield GROUP, [topology.group("intake")], (READ,)
            yield TOPIC, [topology.inbox, topology.outcomes, topology.dead], (WRITE,)
        case "orchestrator":
            yield from _process(topology, own, [*ingress, *egress])
            yield TOPIC, [topology.inbox, topology.control, topology.checkpoints], (READ,)
            yield GROUP, [topology.group("orchestrator")], (READ,)
            yield GROUP, [topology.group(agent) for agent in topology.agents], (DESCRIBE,)
            yield TOPIC, [topology.inbox, topology.outcomes, topology.dead, *tasks, *egress], (WRITE,)
            yield TOPIC, [topology.control, topology.endings, topology.checkpoints], (WRITE,)
            yield TOPIC, [topology.checkpoints], (DELETE,)
        case "worker":
            yield from _process(topology, own, [*ingress, *egress])
            yield TOPIC, [*tasks, topology.control, topology.endings, topology.board], (READ,)
            yield GROUP, [topology.group(agent) for agent in topology.agents], (READ,)
            yield TOPIC, [topology.inbox, topology.dead, topology.board], (WRITE,)
            yield TOPIC, [topology.board], (DELETE,)
        case "monitor":
            yield from _process(topology, own, [*ingress, *egress])
            yield TOPIC, [topology.inbox, topology.outcomes, topology.dead], (READ,)
            yield GROUP, [topology.group("monitor"), topology.group(FAUST_GROUP)], (READ,)
            changelog = f"{topology.group(FAUST_GROUP)}-{FAUST_TABLE}-changelog"
            yield TOPIC, [changelog], (CREATE, READ, WRITE, DESCRIBE)
            yield TOPIC, [topology.windows], (WRITE,)
        case "client":
            yield TOPIC, [topology.outcomes, topology.topologies], (READ,)
            yield TOPIC, [topology.inbox, topology.clock], (WRITE,)
        case "operator":
            groups = (*SERVICE_GROUPS, *topology.agents)
            yield TOPIC, [*own, *ingress, *egress], (READ, CREATE, DESCRIBE, DESCRIBE_CONFIGS, ALTER_CONFIGS)
            yield GROUP, [topology.group(name) for name in groups], (DESCRIBE,)
            yield TOPIC, [topology.inbox, topology.control, ledger_topic(topology), topology.board], (WRITE,)
            yield TOPIC, [topology.clock, *ingress], (WRITE,)
        case "reader":
            yield TOPIC, [*own, *ingress, *egress], (READ,)
        case "sender":
            yield TOPIC, ingress, (WRITE,)
        case "receiver":
            yield TOPIC, [topology.outcomes, *egress], (READ,)


def acl_commands(rights: Iterable[Right], principals: Mapping[str, str], bootstrap: str) -> Iterator[str]:
    """Yield commands of kafka-acls.sh that grant these rights. `principals`: service → `User:name`. Rights that differ
    only in the name of the topic or group share a command."""
    grouped: dict[tuple[str, str, tuple[str, ...]], list[str]] = {}
    for right in rights:
        grouped.setdefault((right.service, right.kind, right.operations), []).append(right.name)
    for (service, kind, operations), names in grouped.items():
        words = [f"--allow-principal '{principals[service]}'"]
        words += [f"--operation {operation}" for operation in operations]
        words += [f"--{kind} {name}" for name in names]
        yield f"kafka-acls.sh --bootstrap-server {bootstrap} --add {' '.join(words)}"


def _process(topology: Topology, own: Iterable[str], domain: Iterable[str]) -> _Wanted:
    """Yield the rights that every process of `mesh up` needs at its start.

    It compares the topics with their declarations, checks the owner of the log, stores its topology, and reads the
    log's time.
    """
    yield TOPIC, [*own, *domain], (DESCRIBE, DESCRIBE_CONFIGS)
    yield TOPIC, [topology.topologies], (READ, WRITE)
    yield TOPIC, [topology.clock], (WRITE,)
