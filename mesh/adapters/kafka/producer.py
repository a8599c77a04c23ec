"""Producers of aiokafka: their settings, an end that cannot hang, and the meaning of their errors."""

import asyncio
from collections.abc import Sequence

from aiokafka import AIOKafkaProducer, errors

from mesh.adapters.kafka.append_queue import QueuedRecord, fill
from mesh.adapters.kafka.codes import InvalidRecordError
from mesh.adapters.kafka.connection import Connection, ended_within
from mesh.adapters.ports import Refused

_CODES: dict[type[errors.KafkaError], str] = {
    errors.MessageSizeTooLargeError: "too_large",
    errors.RecordListTooLargeError: "too_large",
    errors.TopicAuthorizationFailedError: "unauthorized",
    errors.ClusterAuthorizationFailedError: "unauthorized",
    errors.UnknownTopicOrPartitionError: "unknown_topic",
    errors.InvalidTopicError: "invalid",
    errors.InvalidTimestampError: "invalid",
    errors.PolicyViolationError: "invalid",
    errors.UnsupportedForMessageFormatError: "invalid",
    InvalidRecordError: "invalid",
}


def refusal(error: BaseException | type[BaseException]) -> Refused | None:
    """Return the verdict that an error implies; None when it leaves open whether the records were appended."""
    kind = error if isinstance(error, type) else type(error)
    code = _CODES.get(kind) if issubclass(kind, errors.KafkaError) else None
    if code == "unauthorized":
        return Refused(code, "this user has no right Write on it; `mesh export acl` prints what each service needs")
    return Refused(code, str(getattr(error, "description", None) or error)) if code else None


def make(connection: Connection, record_bytes_max: int, *, idempotent: bool = True) -> AIOKafkaProducer:
    """Make a producer without starting it. One that is not idempotent survives a refused batch, but may write twice."""
    return AIOKafkaProducer(
        **connection.arguments("producer"),
        enable_idempotence=idempotent,
        acks="all",
        max_batch_size=record_bytes_max,
        max_request_size=record_bytes_max,
        linger_ms=0,
    )


async def kill(producer: AIOKafkaProducer) -> None:
    """End a producer at once, without flushing: its `stop` would wait for a lost broker without end."""
    producer._closed = True
    sender = producer._sender.sender_task
    if sender is not None:
        sender.cancel()
    await ended_within(1_000, producer.client.close())
    if sender is not None:
        await asyncio.wait([sender], timeout=0.2)
        # It may still wait for the requests that were under way: only a second cancellation ends them.
        sender.cancel()
        await asyncio.wait([sender], timeout=0.2)
    accumulator = producer._message_accumulator
    batches = {batch for queue in accumulator._batches.values() for batch in queue} | accumulator._pending_batches
    # A batch to be repeated waits in a queue, but the library expects it among those under way when it ends.
    accumulator._pending_batches |= batches
    accumulator.fail_all(errors.ProducerClosed())
    for batch in batches:
        for future in (batch.future, batch._drain_waiter):
            if future.done() and not future.cancelled():
                future.exception()  # Read, so that asyncio does not log a lost error: the appender fails every call.


async def bisect(
    connection: Connection, record_bytes_max: int, topic: str, partition: int, entries: Sequence[QueuedRecord]
) -> list[tuple[QueuedRecord, Refused | int]]:
    """Append a refused batch in ever smaller parts, in order, to find the records at fault.

    Returns the offset or the refusal of each. Raises KafkaError when a verdict stays unknown. The producer is not
    idempotent: otherwise every refusal would cost a producer, since the broker misses the refused sequence numbers.
    """
    producer = make(connection, record_bytes_max, idempotent=False)
    verdicts: list[tuple[QueuedRecord, Refused | int]] = []
    todo = [list(entries)]
    try:
        await connection.start("connect a producer", producer.start())
        while todo:
            some = todo.pop()
            builder = producer.create_batch()
            for entry in some:
                fill(builder, entry.record)
            try:
                placed = await (await producer.send_batch(builder, topic, partition=partition))
            except errors.KafkaError as error:
                refused = refusal(error)
                if refused is None:
                    raise
                if len(some) == 1:
                    verdicts.append((some[0], refused))
                else:
                    middle = len(some) // 2
                    todo += [some[middle:], some[:middle]]
            else:
                verdicts.extend((entry, placed.offset + i) for i, entry in enumerate(some))
    finally:
        await kill(producer)
    return verdicts
