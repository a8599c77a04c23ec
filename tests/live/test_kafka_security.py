"""A broker that asks for names, passwords and certificates, and that forbids things."""

import asyncio
import secrets
import subprocess
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._acl import AclBinding, AclOperation, AclPermissionType
from confluent_kafka.admin._resource import ResourcePatternType, ResourceType

from mesh.adapters.kafka import KafkaLog
from mesh.adapters.ports import Appended, Refused, TopicSpec
from mesh.core.errors import LogUnavailable, TopicsInvalid
from mesh.core.protocol.record import NewRecord, TopicPartition
from tests.adapters.log_kit import Recorder, append, numbered, read, values
from tests.live.conftest import OpenKafka, StartKafka
from tests.live.servers import KafkaServer

pytestmark = pytest.mark.live

PASSWORD = "correct horse"
LOGIN = "org.apache.kafka.common.security.plain.PlainLoginModule"
USERS = {"alice": PASSWORD, "bob": "staple"}


def keys(folder: Path) -> dict[str, str]:
    """A key store for the broker and the certificate that clients trust, by the tool that comes with Java."""
    store, certificate = folder / "broker.p12", folder / "broker.pem"
    tool = ["keytool", "-keystore", str(store), "-storetype", "PKCS12", "-storepass", "changeit", "-alias", "broker"]
    name = ["-dname", "CN=localhost", "-ext", "san=dns:localhost,ip:127.0.0.1", "-ext", "bc=ca:true"]
    subprocess.run([*tool, "-genkeypair", "-keyalg", "RSA", "-validity", "30", *name], check=True, capture_output=True)
    subprocess.run([*tool, "-exportcert", "-rfc", "-file", str(certificate)], check=True, capture_output=True)
    return {"store": str(store), "certificate": str(certificate)}


@pytest.fixture(scope="module")
def secured(start_kafka: StartKafka, tmp_path_factory: pytest.TempPathFactory) -> tuple[KafkaServer, str]:
    """A broker with four doors, an authorizer, and topics that create themselves; and what clients trust."""
    files = keys(tmp_path_factory.mktemp("keys"))
    users = " ".join(f'user_{name}="{password}"' for name, password in USERS.items())
    listeners = ["PLAINTEXT://127.0.0.1:{port}", "CONTROLLER://127.0.0.1:{controller}"]
    listeners += ["SASL_PLAINTEXT://127.0.0.1:{sasl}", "SASL_SSL://127.0.0.1:{ssl}"]
    settings = {
        "listeners": ",".join(listeners),
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,"
        "SASL_PLAINTEXT:SASL_PLAINTEXT,SASL_SSL:SASL_SSL",
        "sasl.enabled.mechanisms": "PLAIN",
        "listener.name.sasl_plaintext.plain.sasl.jaas.config": f"{LOGIN} required {users};",
        "listener.name.sasl_ssl.plain.sasl.jaas.config": f"{LOGIN} required {users};",
        "ssl.keystore.location": files["store"],
        "ssl.keystore.password": "changeit",
        "ssl.keystore.type": "PKCS12",
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users": "User:ANONYMOUS",
        "allow.everyone.if.no.acl.found": "true",
        "auto.create.topics.enable": "true",
    }
    server = start_kafka(*(word for key, value in settings.items() for word in ("--set", f"{key}={value}")))
    return server, files["certificate"]


def as_user(name: str, password: str = PASSWORD, **more: str) -> dict[str, str]:
    login = {"sasl_mechanism": "PLAIN", "sasl_plain_username": name, "sasl_plain_password": password}
    return {"security_protocol": "SASL_PLAINTEXT", **login, **more}


def over_tls(certificate: str, **more: str) -> dict[str, str]:
    return as_user("alice", **{"security_protocol": "SASL_SSL", "ssl_cafile": certificate, **more})


def sasl(server: KafkaServer) -> str:
    return f"127.0.0.1:{server.port + 6}"


def tls(server: KafkaServer) -> str:
    return f"127.0.0.1:{server.port + 7}"


async def create(log: KafkaLog, partitions: int = 1) -> str:
    name = f"s{secrets.token_hex(6)}"
    await log.create_topics([TopicSpec(name, partitions)])
    return name


async def test_with_password_and_certificate_everything_works(
    secured: tuple[KafkaServer, str], open_kafka: OpenKafka
) -> None:
    server, certificate = secured
    for address, security in ((sasl(server), as_user("alice")), (tls(server), over_tls(certificate))):
        log = await open_kafka(address, security=security)
        topic = await create(log)
        await append(log, numbered(topic, [1, 2]))
        assert values(await read(log.reader({TopicPartition(topic, 0): 0}), 2)) == [b"1", b"2"]
        listener = Recorder()
        member = await log.join(f"{topic}.group", [topic], listener)
        async with asyncio.timeout(30):
            while not listener.held:
                await member.poll(records_max=1, wait_ms=50)
        await member.close()
        assert PASSWORD not in log.url


@pytest.mark.parametrize(
    ("security", "reason"),
    [
        ({"sasl_plain_password": "wrong"}, "Authentication failed"),
        ({"ssl_cafile": ""}, "CERTIFICATE_VERIFY_FAILED"),
        ({"security_protocol": "SASL_PLAINTEXT", "ssl_cafile": ""}, "127.0.0.1"),
    ],
)
async def test_a_refused_connection_is_explained_without_the_password(
    secured: tuple[KafkaServer, str], security: dict[str, str], reason: str
) -> None:
    server, certificate = secured
    merged = {name: value for name, value in (over_tls(certificate) | security).items() if value}
    log = KafkaLog(tls(server), client_id="test", security=merged, request_timeout_ms=10_000)
    with pytest.raises(LogUnavailable) as raised:
        await log.start()
    assert reason in str(raised.value)
    assert PASSWORD not in str(raised.value)
    await log.close()


async def allow(server: KafkaServer, user: str, kind: ResourceType, name: str, *operations: AclOperation) -> None:
    """From now on only `user` may do only this."""
    client = AdminClient({"bootstrap.servers": server.bootstrap})
    bindings = [
        AclBinding(kind, name, ResourcePatternType.LITERAL, f"User:{user}", "*", operation, AclPermissionType.ALLOW)
        for operation in operations
    ]
    for future in client.create_acls(bindings).values():
        await asyncio.to_thread(future.result, 30)


async def test_a_topic_one_may_not_write_to_is_refused_and_the_others_go_in(
    secured: tuple[KafkaServer, str], open_kafka: OpenKafka
) -> None:
    server, _ = secured
    log = await open_kafka(sasl(server), security=as_user("alice"))
    free, closed, hidden = [await create(log, 2) for _ in range(3)]
    await allow(server, "alice", ResourceType.TOPIC, closed, AclOperation.READ)
    await allow(server, "bob", ResourceType.TOPIC, hidden, AclOperation.ALL)
    for _ in range(3):
        records = [NewRecord(topic, b"k", b"v", (), p) for p in (0, 1) for topic in (free, closed, hidden)]
        verdicts = await log.append(records)
        for record, verdict in zip(records, verdicts, strict=True):
            assert isinstance(verdict, Appended if record.topic == free else Refused), record
            assert isinstance(verdict, Appended) or verdict.code == "unauthorized"
    assert {b.end for b in (await log.bounds(free)).values()} == {3}


async def test_what_may_not_be_created_is_named(secured: tuple[KafkaServer, str], open_kafka: OpenKafka) -> None:
    server, _ = secured
    log = await open_kafka(sasl(server), security=as_user("alice"))
    hidden, fine = f"s{secrets.token_hex(6)}", f"s{secrets.token_hex(6)}"
    await allow(server, "bob", ResourceType.TOPIC, hidden, AclOperation.ALL)
    wrong = [TopicSpec(hidden, 1), TopicSpec("no good name!", 1), TopicSpec("odd", 1, {"nonsense": "1"})]
    with pytest.raises(TopicsInvalid) as raised:
        await log.create_topics([*wrong, TopicSpec(fine, 1)])
    said = "\n".join(raised.value.problems)
    assert hidden in said
    assert "no good name!" in said
    assert "nonsense" in said
    assert fine in await log.topics()


async def test_the_places_of_a_group_one_may_not_see_are_not_taken_for_none(
    secured: tuple[KafkaServer, str], open_kafka: OpenKafka
) -> None:
    server, _ = secured
    log = await open_kafka(sasl(server), security=as_user("alice"))
    topic = await create(log)
    await allow(server, "bob", ResourceType.GROUP, f"{topic}.group", AclOperation.ALL)
    with pytest.raises(LogUnavailable, match="GroupAuthorizationFailed"):
        await log.committed(f"{topic}.group", topic)
    member = await log.join(f"{topic}.group", [topic], Recorder())
    with pytest.raises(LogUnavailable, match="GroupAuthorizationFailed"):
        await member.poll(records_max=1, wait_ms=10_000)
    await member.close()


async def test_asking_about_a_topic_does_not_create_it(secured: tuple[KafkaServer, str], open_kafka: OpenKafka) -> None:
    server, _ = secured
    log = await open_kafka(server.bootstrap)
    (refused,) = await log.append([NewRecord("mistyped", b"k", b"v")])
    assert isinstance(refused, Refused)
    assert refused.code == "unknown_topic"
    assert "mistyped" not in await log.topics()
