"""With exactly the rights that `mesh export acl` prints the mesh runs; without one of them it says which is missing."""

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._acl import AclBinding, AclOperation, AclPermissionType
from confluent_kafka.admin._listoffsets import OffsetSpec
from confluent_kafka.admin._resource import ResourcePatternType, ResourceType

from mesh.app.wiring import load_topology
from mesh.core.topology.model import Topology
from mesh.operations.deployment.acl import GROUP, SERVICES, TOPIC, Right, rights
from tests.cli.conftest import Cli, forker
from tests.live.conftest import StartKafka
from tests.live.servers import KafkaServer
from tests.read_only import reading_commands

pytestmark = pytest.mark.live
__all__ = ["forker"]

LOGIN = "org.apache.kafka.common.security.plain.PlainLoginModule"
OPERATIONS = {
    "Read": AclOperation.READ,
    "Write": AclOperation.WRITE,
    "Delete": AclOperation.DELETE,
    "Create": AclOperation.CREATE,
    "Describe": AclOperation.DESCRIBE,
    "DescribeConfigs": AclOperation.DESCRIBE_CONFIGS,
    "AlterConfigs": AclOperation.ALTER_CONFIGS,
}
TOPICS = """
mesh: {name: desk, inbox: {partitions: 2}}
topics:
  asks: {ingress: ask, id: id, partitions: 2}
  answers: {egress: answer, partitions: 2}
agents:
  echo: {run: "echoing:echo", on: ask, emits: answer, retry: {attempts: 1}}
"""
AGENT = """
from mesh import Context, Payload, agent


class Ask(Payload, type="ask"):
    id: str


class Answer(Payload, type="answer"):
    id: str


@agent
async def echo(ask: Ask, ctx: Context) -> Answer:
    if ask.id == "bad":
        raise ValueError("no")
    return Answer(id=ask.id)
"""
LACKS = {
    "group": ("intake", "group", "desk.intake", "Read"),
    "ingress": ("intake", "topic", "asks", "Read"),
    "inbox": ("intake", "topic", "desk.inbox", "Write"),
    "seen": ("worker", "topic", "desk.board", "Describe"),
    "control": ("worker", "topic", "desk.control", "Read"),
    "tasks": ("orchestrator", "topic", "desk.tasks.echo", "Write"),
}
"""A user → the service whose rights it has, without this one."""


class Desk:
    """A mesh on a broker that forbids what is not allowed, and the users who know its door."""

    def __init__(self, folder: Path, server: KafkaServer) -> None:
        self.folder, self.server = folder, server
        (folder / "topics.yaml").write_text(TOPICS)
        (folder / "echoing.py").write_text(AGENT)
        self.topology: Topology = load_topology(str(folder / "topics.yaml"))

    @property
    def door(self) -> str:
        return f"127.0.0.1:{self.server.port + 6}"

    def allow(self, user: str, given: list[Right]) -> None:
        client = AdminClient({"bootstrap.servers": self.server.bootstrap})
        bindings = [
            AclBinding(
                ResourceType.GROUP if right.kind == GROUP else ResourceType.TOPIC,
                *(right.name, ResourcePatternType.LITERAL, f"User:{user}", "*"),
                *(OPERATIONS[operation], AclPermissionType.ALLOW),
            )
            for right in given
            for operation in right.operations
        ]
        for future in client.create_acls(bindings).values():
            future.result(30)

    def environ(self, user: str) -> dict[str, str]:
        return {
            **{name: text for name, text in os.environ.items() if not name.startswith("MESH_")},
            "MESH_LOG": f"kafka://{self.door}",
            "MESH_BOARD": f"sqlite:{self.folder / 'board.db'}",
            "MESH_KAFKA__SECURITY_PROTOCOL": "SASL_PLAINTEXT",
            "MESH_KAFKA__SASL_MECHANISM": "PLAIN",
            "MESH_KAFKA__SASL_PLAIN_USERNAME": user,
            "MESH_KAFKA__SASL_PLAIN_PASSWORD": "secret",
            "NO_COLOR": "1",
        }

    def mesh(self, user: str, *words: str) -> str:
        """Return the output of a command, which must succeed."""
        done = subprocess.run(
            [sys.executable, "-m", "mesh", *words],
            cwd=self.folder,
            env=self.environ(user),
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, f"{user}: mesh {' '.join(words)}\n{done.stdout}{done.stderr}"
        return str(done.stdout)

    @contextlib.contextmanager
    def up(self, user: str, service: str) -> Iterator[Path]:
        """A process of `mesh up`; answers the file with what it says."""
        said = self.folder / f"{user}.log"
        with said.open("wb") as file:
            process = subprocess.Popen(
                [sys.executable, "-m", "mesh", "up", service],
                cwd=self.folder,
                env=self.environ(user),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=file,
            )
        try:
            yield said
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(30)

    def send(self, value: bytes) -> None:
        """As an upstream system."""
        security = {"security.protocol": "SASL_PLAINTEXT", "sasl.mechanisms": "PLAIN"}
        login = {"sasl.username": "sender", "sasl.password": "secret"}
        producer = Producer({"bootstrap.servers": self.door, **security, **login})
        errors: list[object] = []
        producer.produce("asks", value, on_delivery=lambda error, _: errors.append(error))
        producer.flush(30)
        assert errors == [None]


@pytest.fixture(scope="module")
def desk(start_kafka: StartKafka, tmp_path_factory: pytest.TempPathFactory) -> Desk:
    users = " ".join(f'user_{name}="secret"' for name in (*SERVICES, *LACKS))
    listeners = (
        "PLAINTEXT://127.0.0.1:{port}",
        "CONTROLLER://127.0.0.1:{controller}",
        "SASL_PLAINTEXT://127.0.0.1:{sasl}",
    )
    settings = {
        "listeners": ",".join(listeners),
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SASL_PLAINTEXT:SASL_PLAINTEXT",
        "sasl.enabled.mechanisms": "PLAIN",
        "listener.name.sasl_plaintext.plain.sasl.jaas.config": f"{LOGIN} required {users};",
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users": "User:ANONYMOUS",
        "allow.everyone.if.no.acl.found": "false",
    }
    server = start_kafka(*(word for key, value in settings.items() for word in ("--set", f"{key}={value}")))
    found = Desk(tmp_path_factory.mktemp("desk"), server)
    printed = subprocess.run(
        [sys.executable, "-m", "mesh", "export", "acl", "--json"],
        cwd=found.folder,
        capture_output=True,
        text=True,
        check=True,
    )
    rows = [json.loads(line) for line in str(printed.stdout).splitlines()]
    for service in SERVICES:
        own = [row for row in rows if row["service"] == service]
        found.allow(service, [Right(service, row["kind"], row["name"], tuple(row["operations"])) for row in own])
    found.mesh("operator", "topics", "create")
    return found


def until(said: Path, *words: str) -> str:
    """Return the output of a process once it contains all these words."""
    end = time.monotonic() + 90
    while time.monotonic() < end:
        text = said.read_text()
        if all(word in text for word in words):
            return text
        time.sleep(0.1)
    raise AssertionError(f"{words} are not in\n{said.read_text()}")


def test_with_exactly_these_rights_the_mesh_runs(desk: Desk) -> None:
    with contextlib.ExitStack() as exits:
        services = [exits.enter_context(desk.up(name, name)) for name in ("intake", "orchestrator", "worker")]
        for said in services:
            until(said, '"ready"')
        assert '"answer"' in desk.mesh("client", "publish", "ask", '{"id": "o-1"}', "--wait", "--json")
        for value in (b'{"id": "o-2"}', b"no JSON", b'{"id": "bad"}'):
            desk.send(value)
        end = time.monotonic() + 60
        while desk.mesh("operator", "dead", "list", "--json").count('"reason"') < 2:
            assert time.monotonic() < end, "two dead letters are missing"
        desk.mesh("operator", "stop", "agent", "echo", "--why", "a test")
        desk.mesh("operator", "resume", "agent", "echo")
        desk.mesh("operator", "dead", "redrive", "--reason", "exception", "--yes")
        assert "o-2" in desk.mesh("operator", "run", "list")
        assert "nothing diverges" in desk.mesh("operator", "verify")
        assert "o-2" in desk.mesh("reader", "run", "list")
        assert "completed" in desk.mesh("reader", "run", "show", "o-1")
        assert "nothing diverges" in desk.mesh("reader", "verify")
        told = "".join(file.read_text() for file in services)
    assert "Authorization" not in told
    assert "no right" not in told
    with desk.up("orchestrator", "orchestrator") as again:
        told = until(again, '"ready"')
    assert "Authorization" not in told + again.read_text()
    assert '"stopped"' in again.read_text()


def held(server: KafkaServer) -> tuple[set[str], dict[str, list[int]]]:
    """Return the groups of the broker, and the end offsets of the partitions of each topic."""
    client = AdminClient({"bootstrap.servers": server.bootstrap})
    groups = client.list_consumer_groups().result(30)
    assert groups.errors == []
    topics = {name: sorted(found.partitions) for name, found in client.list_topics(timeout=30).topics.items()}
    places = [TopicPartition(name, number) for name, numbers in topics.items() for number in numbers]
    latest = client.list_offsets({place: OffsetSpec.latest() for place in places})  # type: ignore[no-untyped-call]
    ends = {(place.topic, place.partition): future.result(30).offset for place, future in latest.items()}
    return {group.group_id for group in groups.valid}, {
        name: [ends[name, number] for number in numbers] for name, numbers in topics.items()
    }


def test_a_user_who_may_only_read_topics_has_every_command_that_reads_and_leaves_nothing(
    desk: Desk, forker: socket.socket, tmp_path: Path
) -> None:
    with contextlib.ExitStack() as exits:
        for service in ("intake", "orchestrator", "worker"):
            until(exits.enter_context(desk.up(service, service)), '"ready"')
        desk.mesh("client", "publish", "ask", '{"id": "o-9"}', "--wait")
    given = {(right.kind, right.operations) for right in rights(desk.topology, ["reader"])}
    assert given == {(TOPIC, ("Read",))}
    cli = Cli(forker, desk.folder, tmp_path)
    cli.environ |= desk.environ("reader") | {"HOME": str(tmp_path), "MESH_BOARD": "redis://127.0.0.1:1"}
    before = held(desk.server)
    assert {"desk.orchestrator", "desk.echo"} <= before[0]
    assert sum(before[1]["desk.inbox"]) > 1
    for words in reading_commands("o-9", "echo", "id=o-10", desk.folder):
        done = cli(*words)
        assert done.code in (0, 1), (words, done)
        assert done.out, (words, done)
        assert "error" not in done.err, (words, done)
    assert cli("publish", "ask", '{"id": "o-11"}').code not in (0, 1)
    assert held(desk.server) == before


@pytest.mark.parametrize("user", sorted(LACKS))
async def test_without_a_right_a_process_says_which_is_missing(desk: Desk, user: str) -> None:
    service, kind, name, operation = LACKS[user]
    given = []
    for right in rights(desk.topology, [service]):
        left = tuple(one for one in right.operations if (right.kind, right.name, one) != (kind, name, operation))
        if operation == "Describe" and right.name == name:
            left = ()  # Read and Write imply it
        given.append(right._replace(operations=left))
    desk.allow(user, given)
    with contextlib.ExitStack() as exits:
        said = exits.enter_context(desk.up(user, service))
        if user in ("inbox", "tasks"):
            other = {"inbox": "orchestrator", "tasks": "intake"}[user]
            exits.enter_context(desk.up(other, other))
            await asyncio.to_thread(until, said, '"ready"')
            await asyncio.to_thread(desk.send, b'{"id": "%b"}' % f"{user}-{time.time_ns()}".encode())
        await asyncio.to_thread(until, said, name, operation, "mesh export acl")
