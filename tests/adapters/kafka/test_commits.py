"""Responses of the coordinator: nothing is taken for "never committed" that is not."""

from typing import Any

import pytest
from aiokafka import errors
from aiokafka.protocol.commit import OffsetCommitResponse_v3, OffsetFetchResponse_v3

from mesh.adapters.kafka import commits
from mesh.adapters.ports import Commit
from mesh.core.protocol.record import TopicPartition

A0, A1, B0 = TopicPartition("a", 0), TopicPartition("a", 1), TopicPartition("b", 0)


class Coordinator:
    """Answers every request the same; keeps what it was asked."""

    def __init__(self, response: Any) -> None:
        self.response = response
        self.asked: list[Any] = []

    async def __call__(self, request: Any) -> Any:
        self.asked.append(request)
        return self.response


async def test_places_come_with_their_metadata_and_those_without_one_are_left_out() -> None:
    answer = [("a", [(0, 7, "m", 0), (1, -1, "", 0)]), ("b", [(0, 3, None, 0)])]
    coordinator = Coordinator(OffsetFetchResponse_v3(0, answer, 0))
    assert await commits.fetch(coordinator, "g", [A0, A1, B0]) == {A0: Commit(7, "m"), B0: Commit(3, "")}
    (request,) = coordinator.asked
    assert (request._consumer_group, dict(request._partitions)) == ("g", {"a": [0, 1], "b": [0]})


@pytest.mark.parametrize(
    ("code", "error", "again"),
    [
        (14, errors.GroupLoadInProgressError, True),
        (15, errors.GroupCoordinatorNotAvailableError, True),
        (16, errors.NotCoordinatorForGroupError, True),
        (30, errors.GroupAuthorizationFailedError, False),
    ],
)
async def test_an_error_of_the_whole_answer_is_not_taken_for_no_commit(
    code: int, error: type[errors.KafkaError], again: bool
) -> None:
    with pytest.raises(error) as raised:
        await commits.fetch(Coordinator(OffsetFetchResponse_v3(0, [], code)), "g", [A0])
    assert raised.value.retriable is again


async def test_an_error_of_one_partition_is_raised_and_a_topic_that_is_gone_has_no_place() -> None:
    with pytest.raises(errors.TopicAuthorizationFailedError):
        await commits.fetch(Coordinator(OffsetFetchResponse_v3(0, [("a", [(0, -1, "", 29)])], 0)), "g", [A0])
    gone = OffsetFetchResponse_v3(0, [("a", [(0, -1, "", 3)]), ("b", [(0, 1, "", 0)])], 0)
    assert await commits.fetch(Coordinator(gone), "g", [A0, B0]) == {B0: Commit(1)}


async def test_a_commit_carries_the_generation_and_the_member_it_was_given() -> None:
    coordinator = Coordinator(OffsetCommitResponse_v3(0, [("a", [(0, 0)]), ("b", [(0, 0)])]))
    await commits.store(coordinator, "g", 5, "me", {A0: Commit(1, "é"), B0: Commit(2)})
    (request,) = coordinator.asked
    assert (request._consumer_group_generation_id, request._consumer_id) == (5, "me")
    assert request._topics == [("a", [(0, 1, "é")]), ("b", [(0, 2, "")])]


@pytest.mark.parametrize("code", [22, 25, 27])
async def test_a_stale_member_is_recognised_by_its_error(code: int) -> None:
    with pytest.raises(commits.STALE_MEMBER):
        await commits.store(
            Coordinator(OffsetCommitResponse_v3(0, [("a", [(0, code)])])), "g", 5, "me", {A0: Commit(1)}
        )


@pytest.mark.parametrize(
    ("group", "partition"),
    [("", 0), ("a", 47), ("mesh.orchestrator", 43), ("ключ", 32), ("🔑", 10), ("polygenelubricants", 0)],
)
def test_a_group_lies_where_javas_hash_of_its_name_says(group: str, partition: int) -> None:
    assert commits.offsets_partition(group, 50) == partition
