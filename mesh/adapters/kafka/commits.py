"""Commits of a group: stored under one generation, and read without mistaking an error for a missing commit.

The module sends its own requests, because aiokafka's are unsafe in two ways. Its commit uses the generation at the
moment of sending. After an eviction that is -1, which the broker accepts from any client once the group is empty: so a
zombie moves the offset back. And its read ignores the error of the whole response (coordinator is loading, or moved, or
not authorised). "Try again" then reads as "never committed", and the group would begin at its first record.

The broker has a gap of its own (Kafka 4.3, some 100 ms after each failover). A coordinator that was just elected
answers from before the last commits, or "never committed", until it knows the offsets of its followers. `read` waits.
"""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import partial
from typing import Any

from aiokafka import errors
from aiokafka.client import AIOKafkaClient, ConnectionGroup, CoordinationType
from aiokafka.protocol.commit import OffsetCommitRequest, OffsetFetchRequest
from aiokafka.protocol.metadata import MetadataRequest
from aiokafka.protocol.offset import OffsetRequest, OffsetResetStrategy

from mesh.adapters.ports import Commit
from mesh.core.errors import Fenced, LogUnavailable
from mesh.core.protocol.record import TopicPartition

Send = Callable[[Any], Awaitable[Any]]
"""A function that sends a request to the group's coordinator and returns its response."""

RETRY_S = 0.1
OFFSETS_TOPIC = "__consumer_offsets"
STALE_MEMBER = (errors.IllegalGenerationError, errors.UnknownMemberIdError, errors.RebalanceInProgressError)
COORDINATOR_MOVED = (errors.GroupCoordinatorNotAvailableError, errors.NotCoordinatorForGroupError)


async def store(
    send: Send, group: str, generation: int, member_id: str, commits: Mapping[TopicPartition, Commit]
) -> None:
    """Store commits as one member of one generation. Raises the first KafkaError of any partition."""
    topics: defaultdict[str, list[tuple[int, int, str]]] = defaultdict(list)
    for tp, commit in commits.items():
        topics[tp.topic].append((tp.partition, commit.offset, commit.metadata))
    retention = OffsetCommitRequest.DEFAULT_RETENTION_TIME
    response = await send(OffsetCommitRequest(group, generation, member_id, retention, list(topics.items())))
    for topic, partitions in response.topics:
        for partition, code in partitions:
            _raise_for(code, f"{group} {topic}/{partition}")


async def fetch(send: Send, group: str, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, Commit]:
    """Fetch stored commits. Partitions without one are left out. Raises KafkaError."""
    topics: defaultdict[str, list[int]] = defaultdict(list)
    for tp in partitions:
        topics[tp.topic].append(tp.partition)
    response = await send(OffsetFetchRequest(group, list(topics.items())))
    _raise_for(response.error_code, group)
    places: dict[TopicPartition, Commit] = {}
    for topic, answers in response.topics:
        for partition, offset, metadata, code in answers:
            if code == errors.UnknownTopicOrPartitionError.errno:
                continue
            _raise_for(code, f"{group} {topic}/{partition}")
            if offset >= 0:
                places[TopicPartition(topic, partition)] = Commit(offset, metadata or "")
    return places


async def read(
    client: AIOKafkaClient, group: str, partitions: Iterable[TopicPartition]
) -> dict[TopicPartition, Commit]:
    """Fetch commits from a coordinator that knows all acknowledged ones. Raises KafkaError."""
    node = await _caught_up_coordinator(client, group)
    return await fetch(partial(_send, client, node), group, partitions)


async def _caught_up_coordinator(client: AIOKafkaClient, group: str) -> int:
    """Return the leader of the group's partition of the offsets topic, once its high watermark is known."""
    response = await _send(client, client.get_random_node(), MetadataRequest([OFFSETS_TOPIC], False))
    (answer,) = response.to_object()["topics"]
    leaders = {item["partition"]: item["leader"] for item in answer["partitions"]}
    if not leaders:
        # The topic does not exist or is not visible: the coordinator that the broker names must do.
        return int(await client.coordinator_lookup(CoordinationType.GROUP, group))
    partition = offsets_partition(group, len(leaders))
    if leaders[partition] < 0:
        raise errors.LeaderNotAvailableError(f"{OFFSETS_TOPIC}/{partition}")
    question = OffsetRequest(-1, 0, [(OFFSETS_TOPIC, [(partition, OffsetResetStrategy.LATEST)])])
    response = await _send(client, leaders[partition], question)
    ((_topic, ((_partition, code, *_rest),)),) = response.topics
    if code != errors.TopicAuthorizationFailedError.errno:
        _raise_for(code, f"{OFFSETS_TOPIC}/{partition}")
    return int(leaders[partition])


def offsets_partition(group: str, count: int) -> int:
    """Return the partition of the offsets topic that holds a group, by Java's hash of its name."""
    units = group.encode("utf-16-be")
    code = 0
    for high, low in zip(units[::2], units[1::2], strict=True):
        code = (31 * code + (high << 8 | low)) & 0xFFFFFFFF
    signed = code - (1 << 32) if code >> 31 else code
    return 0 if signed == -(1 << 31) else abs(signed) % count


async def _send(client: AIOKafkaClient, node: int | None, request: Any) -> Any:
    # Not on the connection for fetches, where a response waits behind a fetch that waits for records.
    return await client.send(node, request, group=ConnectionGroup.COORDINATION)


def _raise_for(code: int, where: str) -> None:
    if code:
        raise errors.for_code(code)(where)


async def store_for(
    consumer: Any, group: str, generation: int, member_id: str, commits: Mapping[TopicPartition, Commit]
) -> None:
    """Store commits for an aiokafka consumer that another library made. Tries again until cancelled.

    Raises Fenced for a generation that has passed, LogUnavailable for an error that stays.
    """
    coordinator = consumer._coordinator

    async def send(request: Any) -> Any:
        await coordinator.ensure_coordinator_known()
        return await coordinator._send_req(request)

    while True:
        try:
            return await store(send, group, generation, member_id, commits)
        except STALE_MEMBER as error:
            raise Fenced("the broker takes no commit", where=f"group {group}", got=type(error).__name__) from error
        except COORDINATOR_MOVED:
            coordinator.coordinator_dead()
        except errors.KafkaError as error:
            if not error.retriable:
                raise LogUnavailable(f"a commit failed: {error}", where=f"group {group}") from error
        await asyncio.sleep(RETRY_S)
