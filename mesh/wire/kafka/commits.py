"""A group's places on the broker: how they are stored under one generation, and read with nothing mistaken.

Own requests, because aiokafka's are unsafe in two ways. Its commit takes the generation of the moment at which it is
sent: after an eviction that is -1, which the broker accepts from anybody once the group is empty, so that a zombie
moves the offset back. And its reading ignores the error of the whole answer (coordinator is loading, or moved, or not
authorised): "try again" reads as "never committed", and the group would begin at its first record.
"""

from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

from aiokafka import errors
from aiokafka.protocol.commit import OffsetCommitRequest, OffsetFetchRequest

from mesh.core.record import TopicPartition
from mesh.wire.ports import Commit

Send = Callable[[Any], Awaitable[Any]]
"""Sends a request to the group's coordinator, answers its response."""

STALE_MEMBER = (errors.IllegalGenerationError, errors.UnknownMemberIdError, errors.RebalanceInProgressError)
_COORDINATOR_MOVED = (errors.GroupCoordinatorNotAvailableError, errors.NotCoordinatorForGroupError)


def coordinator_moved(error: errors.KafkaError) -> bool:
    """Whether the coordinator has to be looked up anew."""
    return isinstance(error, _COORDINATOR_MOVED)


async def store(
    send: Send, group: str, generation: int, member_id: str, commits: Mapping[TopicPartition, Commit]
) -> None:
    """Store places as one member of one generation. Raises the first KafkaError of any partition."""
    topics: defaultdict[str, list[tuple[int, int, str]]] = defaultdict(list)
    for tp, commit in commits.items():
        topics[tp.topic].append((tp.partition, commit.offset, commit.metadata))
    retention = OffsetCommitRequest.DEFAULT_RETENTION_TIME
    response = await send(OffsetCommitRequest(group, generation, member_id, retention, list(topics.items())))
    for topic, partitions in response.topics:
        for partition, code in partitions:
            _raise_for(code, f"{group} {topic}/{partition}")


async def fetch(send: Send, group: str, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, Commit]:
    """Stored places; partitions without one are left out. Raises KafkaError."""
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


def _raise_for(code: int, where: str) -> None:
    if code:
        raise errors.for_code(code)(where)
