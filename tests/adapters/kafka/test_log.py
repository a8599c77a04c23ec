"""The log without a broker: refused settings, no answer, not open."""

import subprocess
import sys
import time
from collections.abc import Awaitable, Callable

import pytest

from mesh.adapters.kafka import KafkaLog
from mesh.adapters.ports import TopicSpec
from mesh.core.errors import ConfigInvalid, LogUnavailable
from mesh.core.protocol.record import NewRecord, TopicPartition
from tests.adapters.log_kit import Recorder


def test_the_address_shown_holds_no_secret() -> None:
    login = {"sasl_plain_username": "alice", "sasl_plain_password": "secret"}
    log = KafkaLog("a:1,b:2", client_id="test", security={"security_protocol": "SASL_PLAINTEXT", **login})
    assert log.url == "kafka://a:1,b:2"
    assert "secret" not in repr(log)


def test_a_wrong_setting_is_refused_before_anything_is_tried() -> None:
    with pytest.raises(ConfigInvalid, match="Did you mean ssl_cafile"):
        KafkaLog("a:1", client_id="test", security={"ssl_ca_file": "x"})


def test_python_without_assertions_is_refused() -> None:
    # aiokafka checks its state by assertions: without them it would go on in a state that it believes impossible.
    code = "from mesh.adapters.kafka import KafkaLog; KafkaLog('a:1', client_id='test')"
    done = subprocess.run([sys.executable, "-O", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "Kafka cannot be used with python -O" in done.stderr


async def test_a_missing_broker_is_reported_soon() -> None:
    log = KafkaLog("127.0.0.1:1", client_id="test")
    began = time.monotonic()
    for _ in range(2):
        with pytest.raises(LogUnavailable, match=r"kafka://127\.0\.0\.1:1: connect failed; got .*Connect call failed"):
            await log.start()
    assert time.monotonic() - began < 10
    await log.close()


async def test_a_log_that_is_not_open_refuses_everything() -> None:
    log = KafkaLog("127.0.0.1:1", client_id="test")
    place = TopicPartition("t", 0)
    calls: list[Callable[[], Awaitable[object]]] = [
        lambda: log.append([NewRecord("t", b"k", b"v")]),
        lambda: log.create_topics([TopicSpec("t", 1)]),
        log.topics,
        lambda: log.bounds("t"),
        lambda: log.offsets_at("t", 0),
        lambda: log.committed("g", "t"),
        lambda: log.join("g", ["t"], Recorder()),
    ]
    for call in calls:
        with pytest.raises(LogUnavailable, match="Call start first"):
            await call()
    with pytest.raises(LogUnavailable, match="Call start first"):
        log.reader({place: 0})
    await log.close()
