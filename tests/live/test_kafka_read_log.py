"""A user who may only read the topics reads all of the log, and cannot write, on a broker with Kafka's authorizer."""

from collections.abc import AsyncIterator

import pytest
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._acl import AclBinding, AclOperation, AclPermissionType
from confluent_kafka.admin._resource import ResourcePatternType, ResourceType

from mesh.adapters.kafka import KafkaLog, KafkaReadLog
from mesh.adapters.ports import Bounds, Commit, TopicSpec
from mesh.core.errors import LogUnavailable, NotFound
from mesh.core.protocol.record import NewRecord, TopicPartition
from tests.adapters.log_kit import read, until
from tests.live.conftest import StartKafka
from tests.live.servers import KafkaServer

pytestmark = pytest.mark.live

LOGIN = "org.apache.kafka.common.security.plain.PlainLoginModule"
USERS = 'user_reader="secret" user_keeper="secret"'
SECURITY = {
    "security_protocol": "SASL_PLAINTEXT",
    "sasl_mechanism": "PLAIN",
    "sasl_plain_username": "reader",
    "sasl_plain_password": "secret",
}


@pytest.fixture(scope="module")
def server(start_kafka: StartKafka) -> KafkaServer:
    settings = {
        "listeners": "PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller},SASL_PLAINTEXT://127.0.0.1:{sasl}",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SASL_PLAINTEXT:SASL_PLAINTEXT",
        "sasl.enabled.mechanisms": "PLAIN",
        "listener.name.sasl_plaintext.plain.sasl.jaas.config": f"{LOGIN} required {USERS};",
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users": "User:ANONYMOUS",
        "allow.everyone.if.no.acl.found": "false",
    }
    return start_kafka(*(word for key, value in settings.items() for word in ("--set", f"{key}={value}")))


def allow(server: KafkaServer, kind: ResourceType, name: str, operation: AclOperation, user: str = "reader") -> None:
    """Give a user one right."""
    client = AdminClient({"bootstrap.servers": server.bootstrap})
    pattern = (ResourcePatternType.LITERAL, f"User:{user}", "*")
    binding = AclBinding(kind, name, *pattern, operation, AclPermissionType.ALLOW)
    for future in client.create_acls([binding]).values():
        future.result(30)


@pytest.fixture
async def owner(server: KafkaServer) -> AsyncIterator[KafkaLog]:
    log = KafkaLog(server.bootstrap, client_id="owner")
    await log.start()
    yield log
    await log.close()


def door(server: KafkaServer) -> str:
    return f"127.0.0.1:{server.port + 6}"


@pytest.fixture
async def reading(server: KafkaServer) -> AsyncIterator[KafkaReadLog]:
    log = KafkaReadLog(door(server), client_id="reader", security=SECURITY)
    await log.start()
    yield log
    await log.close()


async def test_read_and_describe_suffice(server: KafkaServer, owner: KafkaLog, reading: KafkaReadLog) -> None:
    await owner.create_topics([TopicSpec("seen", 2), TopicSpec("hidden", 1)])
    await owner.append([NewRecord("seen", b"k", b"%d" % n, [("a", b"b")], n % 2) for n in range(6)])
    allow(server, ResourceType.TOPIC, "seen", AclOperation.READ)
    assert await reading.topics() == {"seen": 2}
    assert await reading.bounds("seen") == {0: Bounds(0, 3), 1: Bounds(0, 3)}
    assert await reading.offsets_at("seen", 0) == {0: 0, 1: 0}
    places = {TopicPartition("seen", 0): 0, TopicPartition("seen", 1): 1}
    both = [log.reader(places) for log in (reading, owner)]
    found = [sorted((r.partition, r.offset, r.value) for r in await read(reader, 5)) for reader in both]
    assert found[0] == found[1]
    for reader in both:
        await reader.close()
    with pytest.raises((NotFound, LogUnavailable)):
        await reading.bounds("hidden")
    writing = KafkaLog(door(server), client_id="writer", security=SECURITY)
    with pytest.raises(LogUnavailable, match="ClusterAuthorizationFailed"):
        await writing.start()  # so the broker forbids what is not allowed, and reading needed no more


async def test_commits_of_a_group_are_read_once_it_may_be_described(
    server: KafkaServer, owner: KafkaLog, reading: KafkaReadLog
) -> None:
    await owner.create_topics([TopicSpec("counted", 1)])
    await owner.append([NewRecord("counted", b"k", b"v", (), 0)])
    await owner.commit_idle("counters", {TopicPartition("counted", 0): Commit(1, "note")})
    allow(server, ResourceType.TOPIC, "counted", AclOperation.READ)
    assert await reading.committed("counters", "counted") == {}
    allow(server, ResourceType.GROUP, "counters", AclOperation.DESCRIBE)
    assert await reading.committed("counters", "counted") == {0: Commit(1, "note")}


async def test_the_log_itself_never_takes_a_missing_right_for_a_missing_commit(
    server: KafkaServer, owner: KafkaLog
) -> None:
    await owner.create_topics([TopicSpec("kept", 1)])
    for operation in (AclOperation.READ, AclOperation.WRITE):
        allow(server, ResourceType.TOPIC, "kept", operation, "keeper")
    writing = KafkaLog(door(server), client_id="writer", security=SECURITY | {"sasl_plain_username": "keeper"})
    await writing.start()
    with pytest.raises(LogUnavailable, match="group"):
        await writing.committed("keepers", "kept")
    await writing.close()


async def test_a_reader_that_is_left_open_is_closed_with_the_log(server: KafkaServer, owner: KafkaLog) -> None:
    await owner.create_topics([TopicSpec("open", 1)])
    log = KafkaReadLog(server.bootstrap, client_id="reader")
    with pytest.raises(LogUnavailable, match="not open"):
        await log.topics()
    await log.start()
    assert not log.knows_time
    reader = log.reader({TopicPartition("open", 0): 0})
    assert await reader.poll(records_max=1, wait_ms=100) == []
    await log.close()
    await until(lambda: reader.closed)
