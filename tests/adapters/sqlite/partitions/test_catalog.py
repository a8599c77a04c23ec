"""Topics, and where their partitions begin and end."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing

import pytest

from mesh.adapters.ports import Bounds, TopicSpec
from mesh.adapters.sqlite.partitions import catalog
from mesh.adapters.sqlite.partitions.catalog import Catalog, PartitionEnd, Topic
from mesh.core.errors import InvalidInput, NotFound
from mesh.core.protocol.record import TopicPartition


@pytest.fixture
def db() -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        for statement in catalog.SCHEMA:
            connection.execute(statement)
        yield connection


def put(db: sqlite3.Connection, number: int, offset: int, records: int, at_ms: int) -> None:
    row = (number << catalog.OFFSET_BITS | offset, records, at_ms)
    db.execute("INSERT INTO batches VALUES (?, ?, ?, '', '', '', '')", row)


@pytest.mark.parametrize("name", ["", "a b", "a/b", "ü", "x" * 250, ".", ".."])
def test_a_topic_has_a_name_that_kafka_would_take_too(name: str) -> None:
    with pytest.raises(InvalidInput, match="topic name"):
        catalog.check(TopicSpec(name, 1))


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (TopicSpec("t", 0), "partitions"),
        (TopicSpec("t", 10_001), "partitions"),
        (TopicSpec("t", 1, {"retention.ms": "a week"}), "retention.ms.*'a week'"),
        (TopicSpec("t", 1, {"retention.ms": "-2"}), "retention.ms"),
    ],
)
def test_a_spec_that_cannot_be_is_refused(spec: TopicSpec, words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        catalog.check(spec)


def test_partitions_of_all_topics_have_numbers_of_their_own(db: sqlite3.Connection) -> None:
    assert catalog.create(db, [TopicSpec("a", 3), TopicSpec("b", 2, {"retention.ms": "5"})]) == ["a", "b"]
    assert catalog.create(db, [TopicSpec("b", 9), TopicSpec("c", 1)]) == ["c"]
    known = Catalog()
    assert known.topic(db, "a") == Topic("a", 1, 3, None)
    assert known.topic(db, "b") == Topic("b", 4, 2, 5)
    assert known.topic(db, "c") == Topic("c", 6, 1, None)
    assert known.number(db, TopicPartition("b", 1)) == 5
    assert known.partition(db, 5) == TopicPartition("b", 1)
    with pytest.raises(NotFound, match=r"unknown topic 'd'.*a, b, c"):
        known.topic(db, "d")
    with pytest.raises(NotFound, match="no partition 2"):
        known.number(db, TopicPartition("b", 2))


def test_the_end_is_after_the_last_record_and_stays_when_all_are_gone(db: sqlite3.Connection) -> None:
    catalog.create(db, [TopicSpec("t", 3)])
    put(db, 1, 0, 10, 100)
    put(db, 1, 10, 5, 200)
    db.execute("UPDATE partitions SET start = 44, last_ms = 300 WHERE number = 3")
    assert catalog.ends(db, [1, 2, 3]) == {
        1: PartitionEnd(0, 15, 200),
        2: PartitionEnd(0, 0, 0),
        3: PartitionEnd(44, 44, 300),
    }
    topic = Catalog().topic(db, "t")
    assert catalog.bounds(db, topic) == {0: Bounds(0, 15), 1: Bounds(0, 0), 2: Bounds(44, 44)}


def test_a_time_is_found_by_bisection_whatever_the_batches(db: sqlite3.Connection) -> None:
    catalog.create(db, [TopicSpec("t", 2)])
    offset = 7
    firsts = []
    for number in range(50):
        put(db, 1, offset, 1 + number % 4, 100 + 10 * number)
        firsts.append(offset)
        offset += 1 + number % 4
    put(db, 2, 0, 1, 5)
    end = PartitionEnd(7, offset, 590)
    for number, first in enumerate(firsts):
        assert catalog.first_at(db, 1, end, 100 + 10 * number) == first
        assert catalog.first_at(db, 1, end, 91 + 10 * number) == first
    assert catalog.first_at(db, 1, end, 0) == 7
    assert catalog.first_at(db, 1, end, 591) == offset
    assert catalog.first_at(db, 1, PartitionEnd(0, offset, 590), 0) == 7


def test_a_place_takes_forty_bits_so_a_partition_lasts() -> None:
    assert 1 << catalog.OFFSET_BITS > 100_000 * 86_400 * 100
