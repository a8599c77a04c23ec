"""Every implementation keeps what its port promises: names, parameters, and which calls are awaited.

The functions below that are never called let mypy compare the types as well.
"""

import inspect
import re
from typing import Any

import pytest

from mesh.adapters import ports
from mesh.adapters.clock import SystemClock
from mesh.adapters.kafka.log import KafkaLog
from mesh.adapters.kafka.member import KafkaMember
from mesh.adapters.kafka.reader import KafkaReader
from mesh.adapters.ports import Board, Clock, Commit, Listener, Log, Member, Reader, TopicSpec
from mesh.adapters.redis.board import RedisBoard
from mesh.adapters.sqlite import SqliteBoard, SqliteLog
from mesh.adapters.sqlite.groups.group import SqliteMember
from mesh.adapters.sqlite.partitions.fetch import SqliteReader
from tests.adapters.log_kit import Recorder

IMPLEMENTATIONS = [
    (Log, SqliteLog),
    (Log, KafkaLog),
    (Member, SqliteMember),
    (Member, KafkaMember),
    (Reader, SqliteReader),
    (Reader, KafkaReader),
    (Board, SqliteBoard),
    (Board, RedisBoard),
    (Clock, SystemClock),
    (Listener, Recorder),
]


def logs(embedded: SqliteLog, kafka: KafkaLog) -> list[Log]:
    return [embedded, kafka]


def members(embedded: SqliteMember, kafka: KafkaMember) -> list[Member]:
    return [embedded, kafka]


def readers(embedded: SqliteReader, kafka: KafkaReader) -> list[Reader]:
    return [embedded, kafka]


def boards(embedded: SqliteBoard, redis: RedisBoard) -> list[Board]:
    return [embedded, redis]


def clocks(system: SystemClock) -> list[Clock]:
    return [system]


def promised(port: type) -> list[str]:
    return [name for name in vars(port) if not name.startswith("_")]


def parameters(function: Any) -> list[tuple[str, Any, Any]]:
    return [
        (parameter.name, parameter.kind, parameter.default)
        for parameter in inspect.signature(function).parameters.values()
    ]


@pytest.mark.parametrize(("port", "implementation"), IMPLEMENTATIONS)
def test_an_implementation_has_everything_its_port_promises(port: type, implementation: type) -> None:
    assert promised(port)
    for name in promised(port):
        wanted, found = inspect.getattr_static(port, name), inspect.getattr_static(implementation, name)
        if isinstance(wanted, property):
            assert isinstance(found, property), name
        else:
            assert parameters(wanted) == parameters(found), name
            assert inspect.iscoroutinefunction(wanted) == inspect.iscoroutinefunction(found), name


def test_every_port_and_each_of_its_calls_says_what_it_promises_or_is_said_by_the_port() -> None:
    for port in (Log, Member, Reader, Board, Clock, Listener):
        assert inspect.getdoc(port), port
    silent = {
        f"{port.__name__}.{name}"
        for port in (Log, Member, Reader, Board)
        for name in promised(port)
        if not inspect.getdoc(inspect.getattr_static(port, name))
    }
    assert silent <= {
        "Log.record_bytes_max",
        "Log.start",
        "Log.reader",
        "Member.assignment",
        "Member.pause",
        "Reader.seek",
        "Reader.close",
        "Board.url",
        "Board.start",
        "Board.close",
        "Board.incarnation",
        "Board.get",
    }


def test_the_codes_of_refusal_are_named_in_the_port() -> None:
    doc = inspect.getdoc(ports.Refused) or ""
    assert set(re.findall(r"`(\w+)`", doc)) == {"too_large", "unauthorized", "unknown_topic", "invalid"}


def test_what_may_be_left_out_has_the_value_that_means_nothing() -> None:
    assert Commit(7) == (7, "")
    assert TopicSpec("t", 1).config == {}
