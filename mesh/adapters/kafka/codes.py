"""Corrections to aiokafka 0.14: error codes that it calls "unknown error", and a response that it misreads."""

from aiokafka import errors
from aiokafka.protocol.admin import DescribeGroupsRequest_v3, DescribeGroupsResponse_v3


class FencedLeaderEpochError(errors.BrokerResponseError):  # type: ignore[misc]  # aiokafka is not typed
    """The request went to a former leader."""

    errno = 74
    message = "FENCED_LEADER_EPOCH"
    description = "The leader epoch in the request is older than the epoch on the broker"
    retriable = True
    invalid_metadata = True


class UnknownLeaderEpochError(errors.BrokerResponseError):  # type: ignore[misc]
    """The broker does not know yet that it was elected."""

    errno = 75
    message = "UNKNOWN_LEADER_EPOCH"
    description = "The leader epoch in the request is newer than the epoch on the broker"
    retriable = True


class OffsetNotAvailableError(errors.BrokerResponseError):  # type: ignore[misc]
    """A new leader does not know the offsets of its followers yet."""

    errno = 78
    message = "OFFSET_NOT_AVAILABLE"
    description = "The leader's high watermark has not caught up from a recent leader election"
    retriable = True


class InvalidRecordError(errors.BrokerResponseError):  # type: ignore[misc]
    """The broker never takes this record."""

    errno = 87
    message = "INVALID_RECORD"
    description = "The broker refused a record, for example one without a key on a compacted topic"


def install() -> None:
    """Correct the library. Without the second correction it misreads each group after the first of a response."""
    for error in (FencedLeaderEpochError, UnknownLeaderEpochError, OffsetNotAvailableError, InvalidRecordError):
        errors.kafka_errors.setdefault(error.errno, error)
    DescribeGroupsRequest_v3.RESPONSE_TYPE = DescribeGroupsResponse_v3
