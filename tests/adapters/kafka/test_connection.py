"""Settings of a connection, and the deadline that every question has."""

import asyncio
import ssl
import time
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer
from aiokafka.errors import GroupAuthorizationFailedError, KafkaConnectionError, NodeNotReadyError

from mesh.adapters.kafka.connection import Connection, end_consumer, ended_within
from mesh.core.errors import ConfigInvalid, LogUnavailable


def connection(*, timeout_ms: int = 200) -> Connection:
    return Connection("127.0.0.1:9092", client_id="test", security={}, request_timeout_ms=timeout_ms)


def secured(**security: str) -> Connection:
    return Connection("127.0.0.1:9092", client_id="test", security=security, request_timeout_ms=200)


SASL = {"security_protocol": "SASL_PLAINTEXT", "sasl_plain_username": "alice", "sasl_plain_password": "secret"}


def test_settings_are_passed_on_under_their_own_names() -> None:
    arguments = secured(**SASL, sasl_mechanism="SCRAM-SHA-256").arguments("producer")
    assert arguments["bootstrap_servers"] == "127.0.0.1:9092"
    assert arguments["client_id"] == "test-producer"
    assert arguments["request_timeout_ms"] == 200
    assert arguments["security_protocol"] == "SASL_PLAINTEXT"
    assert arguments["sasl_mechanism"] == "SCRAM-SHA-256"
    assert (arguments["sasl_plain_username"], arguments["sasl_plain_password"]) == ("alice", "secret")


def test_without_settings_nothing_is_encrypted() -> None:
    assert connection().arguments("admin")["security_protocol"] == "PLAINTEXT"


def test_tls_checks_the_name_of_the_broker_unless_configured_otherwise() -> None:
    context = secured(security_protocol="SSL").arguments("admin")["ssl_context"]
    assert isinstance(context, ssl.SSLContext)
    assert context.check_hostname
    assert context.verify_mode is ssl.CERT_REQUIRED
    lenient = secured(security_protocol="SSL", ssl_check_hostname="false").arguments("admin")["ssl_context"]
    assert not lenient.check_hostname
    assert lenient.verify_mode is ssl.CERT_REQUIRED


@pytest.mark.parametrize(
    ("security", "said"),
    [
        ({"sasl_mechanisms": "PLAIN"}, "Did you mean sasl_mechanism?"),
        ({"colour": "blue"}, "unknown Kafka setting 'colour'"),
        ({"security_protocol": "TLS"}, "PLAINTEXT or SSL or SASL_PLAINTEXT or SASL_SSL"),
        ({**SASL, "sasl_mechanism": "plain"}, "invalid sasl_mechanism"),
        ({"security_protocol": "SASL_SSL", "sasl_plain_username": "alice"}, "sasl_plain_password is missing"),
        ({"security_protocol": "SASL_SSL", "sasl_plain_password": "secret"}, "sasl_plain_username is missing"),
        ({"sasl_plain_username": "alice"}, "has no effect with security_protocol PLAINTEXT"),
        ({**SASL, "ssl_cafile": "ca.pem"}, "has no effect with security_protocol SASL_PLAINTEXT"),
        ({"security_protocol": "SSL", "sasl_plain_username": "a"}, "has no effect with security_protocol SSL"),
        ({"security_protocol": "SSL", "ssl_cafile": "/no/such/file"}, "ssl_cafile=/no/such/file"),
        ({"security_protocol": "SSL", "ssl_keyfile": "key.pem"}, "ssl_keyfile without ssl_certfile"),
        ({"security_protocol": "SSL", "ssl_check_hostname": "no"}, "true or false"),
    ],
)
def test_what_cannot_work_is_refused_at_once(security: dict[str, str], said: str) -> None:
    with pytest.raises(ConfigInvalid) as raised:
        secured(**security)
    assert said in str(raised.value)
    assert "secret" not in str(raised.value)


def test_a_file_that_is_no_certificate_is_named(tmp_path: Path) -> None:
    wrong = tmp_path / "ca.pem"
    wrong.write_text("nothing")
    with pytest.raises(ConfigInvalid, match=r"ca\.pem"):
        secured(security_protocol="SSL", ssl_cafile=str(wrong))


async def test_a_question_is_repeated_while_the_broker_says_not_now() -> None:
    answers: list[str | Exception] = [NodeNotReadyError(), KafkaConnectionError("gone"), "yes"]

    async def question() -> str:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    assert await connection(timeout_ms=5_000).ask("ask", question) == "yes"
    assert answers == []


async def test_a_question_without_answer_ends_at_the_deadline_and_reports_what_went_wrong_last() -> None:
    async def question() -> None:
        raise KafkaConnectionError("no route")

    began = time.monotonic()
    with pytest.raises(
        LogUnavailable, match=r"127\.0\.0\.1:9092: ask did not end; .* 200 ms, got none \(last: .*no route"
    ):
        await connection().ask("ask", question)
    assert 0.15 < time.monotonic() - began < 5


async def test_a_question_that_hangs_ends_at_its_own_deadline() -> None:
    with pytest.raises(LogUnavailable, match="within 50 ms, got none"):
        await connection(timeout_ms=60_000).ask("ask", asyncio.Event().wait, timeout_ms=50)


async def test_a_final_refusal_is_not_asked_again() -> None:
    asked = 0

    async def question() -> None:
        nonlocal asked
        asked += 1
        raise GroupAuthorizationFailedError("group")

    with pytest.raises(LogUnavailable, match=r"ask failed.*GroupAuthorizationFailed"):
        await connection().ask("ask", question)
    assert asked == 1


async def test_an_end_in_time_is_distinguished_from_one_that_hangs_or_fails() -> None:
    async def fails() -> None:
        raise RuntimeError("no")

    async def leaks() -> None:
        # As aiokafka's stop does: a cancellation of its own tasks comes out.
        raise asyncio.CancelledError

    assert await ended_within(1_000, asyncio.sleep(0))
    assert not await ended_within(1_000, leaks())
    assert not await ended_within(1_000, fails())
    assert not await ended_within(20, asyncio.Event().wait())


async def test_a_consumer_whose_stop_is_cut_short_by_its_own_tasks_connects_never_again() -> None:
    consumer = AIOKafkaConsumer(bootstrap_servers="127.0.0.1:1")
    client = consumer._client
    client._sync_task = asyncio.create_task(client._md_synchronizer())
    consumer._coordinator = Cut()
    await end_consumer(1_000, consumer)
    assert client._sync_task is None


class Cut:
    """A coordinator whose end lets a cancellation out."""

    async def close(self) -> None:
        raise asyncio.CancelledError


async def test_an_end_that_ignores_its_cancellation_is_left_behind() -> None:
    release = asyncio.Event()

    async def stubborn() -> None:
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue

    began = time.monotonic()
    assert not await ended_within(20, stubborn())
    assert time.monotonic() - began < 10
    release.set()
    await asyncio.sleep(0)


async def test_the_reason_for_no_answer_is_part_of_the_error() -> None:
    async def start() -> None:
        raise KafkaConnectionError("Unable to bootstrap from [...]")

    closed_port = Connection("127.0.0.1:1", client_id="test", security={}, request_timeout_ms=5_000)
    with pytest.raises(LogUnavailable, match=r"127\.0\.0\.1:1: .*Connect call failed"):
        await closed_port.start("connect", start())
