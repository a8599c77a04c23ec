"""Which errors are verdicts, and how a producer ends."""

import asyncio
import time

import pytest
from aiokafka import errors

from mesh.wire.kafka.codes import InvalidRecordError
from mesh.wire.kafka.connection import Connection
from mesh.wire.kafka.producer import kill, make, refusal

NOBODY = Connection("127.0.0.1:1", client_id="test", security={}, request_timeout_ms=1_000)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.MessageSizeTooLargeError(), "too_large"),
        (errors.RecordListTooLargeError(), "too_large"),
        (errors.TopicAuthorizationFailedError("t"), "unauthorized"),
        (errors.ClusterAuthorizationFailedError(), "unauthorized"),
        (errors.InvalidTopicError(), "invalid"),
        (errors.InvalidTimestampError(), "invalid"),
        (errors.PolicyViolationError(), "invalid"),
        (InvalidRecordError(), "invalid"),
    ],
)
def test_what_the_broker_will_never_take_is_a_verdict(error: errors.KafkaError, code: str) -> None:
    refused = refusal(error)
    assert refused is not None
    assert refused.code == code
    assert refused.message


@pytest.mark.parametrize(
    "error",
    [
        errors.OutOfOrderSequenceNumber(),
        errors.ProducerFenced(),
        errors.UnknownProducerId(),
        errors.UnknownError(),
        errors.KafkaTimeoutError(),
        errors.KafkaConnectionError(),
        errors.CorruptRecordException(),
        errors.StaleLeaderEpochCodeError(),
        asyncio.CancelledError(),
    ],
)
def test_what_leaves_open_whether_it_was_appended_is_no_verdict(error: BaseException) -> None:
    assert refusal(error) is None


async def test_every_producer_waits_for_all_replicas() -> None:
    for idempotent in (True, False):
        producer = make(NOBODY, 1_000, idempotent=idempotent)
        assert producer._sender._acks == -1
        assert (producer._txn_manager is not None) is idempotent
        await kill(producer)


async def test_a_producer_that_never_connected_ends_at_once() -> None:
    producer = make(NOBODY, 1_000)
    with pytest.raises(errors.KafkaConnectionError):
        await producer.start()
    began = time.monotonic()
    await kill(producer)
    assert time.monotonic() - began < 2
