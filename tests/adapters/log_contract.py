"""The contract of every Log. A test class for one log inherits `LogContract` and gives:

`open_log` (fixture)
    Opens one more connection to the same log; closes all of them after the test.
`abandon` (method)
    Ends a member as `kill -9` would: no `revoked`, no farewell to the group.
`session_timeout_ms`
    The shortest session timeout the log allows.
"""

import asyncio
import secrets
import time

import pytest

from mesh.adapters.ports import Appended, Bounds, Log, Refused, TopicSpec
from mesh.core.errors import NotFound
from mesh.core.protocol.partitioner import partition_of
from mesh.core.protocol.record import NewRecord, Record, TopicPartition
from tests.adapters.group_contract import GroupContract
from tests.adapters.log_kit import (
    PATIENCE_S,
    QUIET_MS,
    Make,
    OpenLog,
    append,
    numbered,
    partitions_of,
    read,
    until,
    values,
)


class LogContract(GroupContract):
    """Topics, appending and reading; groups are inherited."""

    # ------------------------------------------------------------------------------------------------------ topics

    async def test_a_log_says_where_it_is_and_what_it_takes(self, log: Log) -> None:
        assert ":" in log.url
        assert log.record_bytes_max >= 65_536

    async def test_topics_are_created_once_and_then_left_as_they_are(self, log: Log, topic_name: str) -> None:
        assert list(await log.create_topics([TopicSpec(topic_name, 3)])) == [topic_name]
        other = f"{topic_name}.other"
        again = await log.create_topics([TopicSpec(topic_name, 7), TopicSpec(other, 1, {"retention.ms": "-1"})])
        assert list(again) == [other]
        topics = await log.topics()
        assert (topics[topic_name], topics[other]) == (3, 1)

    async def test_two_connections_that_create_a_topic_at_once_make_one(
        self, log: Log, open_log: OpenLog, topic_name: str
    ) -> None:
        second = await open_log()
        made = await asyncio.gather(*(one.create_topics([TopicSpec(topic_name, 2)]) for one in (log, second)))
        assert [*made[0], *made[1]] == [topic_name]
        assert (await second.topics())[topic_name] == 2

    async def test_what_is_asked_of_an_unknown_topic_is_not_found(self, log: Log) -> None:
        with pytest.raises(NotFound):
            await log.bounds("nosuch")
        with pytest.raises(NotFound):
            await log.offsets_at("nosuch", 0)

    async def test_what_was_trimmed_is_gone_and_the_rest_is_as_it_was(
        self, log: Log, make: Make, open_log: OpenLog
    ) -> None:
        topic = await make(2)
        place = TopicPartition(topic, 0)
        await append(log, numbered(topic, range(10)))
        second = await append(log, numbered(topic, range(10, 20)))
        await append(log, numbered(topic, [99], partition=1))
        before = await log.bounds(topic)
        await log.trim(place, second[0].offset)
        assert await (await open_log()).bounds(topic) == {0: Bounds(second[0].offset, before[0].end), 1: before[1]}
        assert values(await read(log.reader({place: 0}), 10)) == [b"%d" % n for n in range(10, 20)]
        await log.trim(place, second[0].offset - 1)
        assert (await log.bounds(topic))[0].start == second[0].offset, "what is gone does not come back"

    async def test_a_partition_trimmed_beyond_its_end_is_empty_and_its_offsets_go_on(
        self, log: Log, make: Make
    ) -> None:
        topic = await make(1)
        place = TopicPartition(topic, 0)
        (last,) = await append(log, numbered(topic, [1]))
        await log.trim(place, last.offset + 100)
        (found,) = (await log.bounds(topic)).values()
        assert found.start == found.end > last.offset
        (following,) = await append(log, numbered(topic, [2]))
        assert following.offset >= found.end
        assert values(await read(log.reader({place: 0}), 1)) == [b"2"]

    async def test_what_does_not_exist_cannot_be_trimmed(self, log: Log, make: Make) -> None:
        topic = await make(1)
        for place in (TopicPartition("nosuch", 0), TopicPartition(topic, 1)):
            with pytest.raises(NotFound):
                await log.trim(place, 1)

    # ------------------------------------------------------------------------------------------------------ append

    async def test_records_of_a_partition_are_read_in_the_order_of_appending(self, log: Log, make: Make) -> None:
        topic = await make(1)
        first = await append(log, numbered(topic, range(100)))
        second = await append(log, numbered(topic, range(100, 150)))
        offsets = [v.offset for v in first + second]
        assert offsets == sorted(set(offsets))
        records = await read(log.reader({TopicPartition(topic, 0): 0}), 150)
        assert values(records) == [b"%d" % number for number in range(150)]
        assert [record.offset for record in records] == offsets
        assert {(record.topic, record.partition) for record in records} == {(topic, 0)}

    async def test_nothing_to_append_is_no_mistake(self, log: Log) -> None:
        assert list(await log.append([])) == []

    async def test_a_key_decides_the_partition_as_in_every_kafka_client(self, log: Log, make: Make) -> None:
        topic = await make(5)
        keys = [b"", b"a", b"run-17", "ключ".encode(), *(b"%d" % number for number in range(40))]
        verdicts = await append(log, [NewRecord(topic, key, key) for key in keys])
        assert [v.partition for v in verdicts] == [partition_of(key, 5) for key in keys]

    async def test_a_named_partition_wins_over_the_key(self, log: Log, make: Make) -> None:
        topic = await make(5)
        verdicts = await append(log, [NewRecord(topic, b"a", b"", (), partition) for partition in (4, 0, 4, 2)])
        assert [v.partition for v in verdicts] == [4, 0, 4, 2]

    async def test_a_record_without_key_goes_to_some_partition(self, log: Log, make: Make) -> None:
        topic = await make(3)
        verdicts = await append(log, [NewRecord(topic, None, b"x") for _ in range(9)])
        assert {v.partition for v in verdicts} <= {0, 1, 2}

    async def test_key_value_and_headers_come_back_byte_for_byte(self, log: Log, make: Make) -> None:
        topic = await make(1)
        everything = bytes(range(256))
        sent = [
            NewRecord(topic, b"k", b"v", (("a", b"1"), ("b", b"2"), ("a", b"1"), ("a", b""))),
            NewRecord(topic, None, None),
            NewRecord(topic, b"", b""),
            NewRecord(topic, everything, everything * 3, (("raw", everything), ("", b"\0"), ("été\n", b"\xff\xfe"))),
            NewRecord(topic, b"k", b"\0", [("list", b"x")]),
            NewRecord(topic, b"\0\0", b"v", tuple((f"h{number}", b"%d" % number) for number in range(300))),
        ]
        await append(log, [record._replace(partition=0) for record in sent])
        records = await read(log.reader({TopicPartition(topic, 0): 0}), len(sent))
        for record, expected in zip(records, sent, strict=True):
            assert (record.key, record.value) == (expected.key, expected.value)
            assert list(record.headers) == list(expected.headers)
            assert len(record.headers) == len(expected.headers)

    async def test_times_are_about_now_and_never_fall(self, log: Log, make: Make) -> None:
        topic = await make(1)
        before_ms = time.time_ns() // 1_000_000
        for number in range(5):
            await append(log, numbered(topic, [number]))
        times = [r.timestamp for r in await read(log.reader({TopicPartition(topic, 0): 0}), 5)]
        assert times == sorted(times)
        assert before_ms - 1_000 <= times[0] <= times[-1] <= time.time_ns() // 1_000_000 + 1_000

    async def test_an_unknown_topic_is_refused_and_the_others_go_in(self, log: Log, make: Make) -> None:
        topic = await make(1)
        one, two = numbered(topic, [1, 2])
        verdicts = await log.append([one, NewRecord(f"{topic}.nosuch", b"k", b"v"), two])
        assert isinstance(verdicts[1], Refused)
        assert verdicts[1].code == "unknown_topic"
        assert f"{topic}.nosuch" in verdicts[1].message
        assert values(await read(log.reader({TopicPartition(topic, 0): 0}), 2)) == [b"1", b"2"]

    async def test_a_partition_that_does_not_exist_is_refused_and_the_others_go_in(self, log: Log, make: Make) -> None:
        topic = await make(2)
        records = [NewRecord(topic, None, b"%d" % number, (), number) for number in (0, 2, 1, -1)]
        verdicts = await log.append(records)
        assert [v.code if isinstance(v, Refused) else v.partition for v in verdicts] == [0, "invalid", 1, "invalid"]

    async def test_a_record_over_the_limit_is_refused_with_numbers_and_the_others_go_in(
        self, log: Log, make: Make
    ) -> None:
        topic = await make(1)
        limit = log.record_bytes_max
        large = [
            NewRecord(topic, b"k", b"x" * (limit + 1), (), 0),
            NewRecord(topic, b"k" * (limit + 1), b"x", (), 0),
            NewRecord(topic, b"k", b"x", (("h", b"x" * (limit + 1)),), 0),
        ]
        first, second, third, fourth = numbered(topic, [1, 2, 3, 4])
        verdicts = await log.append([first, large[0], second, large[1], third, large[2], fourth])
        for verdict in verdicts[1::2]:
            assert isinstance(verdict, Refused)
            assert verdict.code == "too_large"
            assert str(limit) in verdict.message
        assert values(await read(log.reader({TopicPartition(topic, 0): 0}), 4)) == [b"1", b"2", b"3", b"4"]

    async def test_large_records_below_the_limit_are_taken(self, log: Log, make: Make) -> None:
        topic = await make(1)
        size = log.record_bytes_max * 9 // 10
        sent = [secrets.token_bytes(16) * (size // 16) for _ in range(3)]
        await append(log, [NewRecord(topic, b"k", value, (("h", b"x" * 100),), 0) for value in sent])
        assert values(await read(log.reader({TopicPartition(topic, 0): 0}), 3)) == sent

    async def test_callers_at_once_each_keep_their_order(self, log: Log, make: Make, open_log: OpenLog) -> None:
        topic = await make(2)
        logs = [log, await open_log()]

        async def caller(name: int) -> list[Appended]:
            verdicts = []
            for at in range(0, 60, 20):
                records = [
                    NewRecord(topic, b"%d" % name, b"%d" % number, (), name % 2) for number in range(at, at + 20)
                ]
                verdicts += await append(logs[name % 3 % 2], records)
            return verdicts

        verdicts = await asyncio.gather(*(caller(name) for name in range(10)))
        assert len({(v.partition, v.offset) for each in verdicts for v in each}) == 600
        records = await read(log.reader({TopicPartition(topic, 0): 0, TopicPartition(topic, 1): 0}), 600)
        for name in range(10):
            assert [r.value for r in records if r.key == b"%d" % name] == [b"%d" % number for number in range(60)]

    async def test_a_large_batch_over_many_partitions_arrives_whole(self, log: Log, make: Make) -> None:
        topic = await make(4)
        verdicts = await append(log, [NewRecord(topic, b"%d" % (n % 97), b"%d" % n) for n in range(5_000)])
        assert len({(v.partition, v.offset) for v in verdicts}) == 5_000
        records = await read(log.reader(dict.fromkeys(partitions_of(topic, 4), 0)), 5_000)
        assert {(r.partition, r.offset, r.value) for r in records} == {
            (v.partition, v.offset, b"%d" % n) for n, v in enumerate(verdicts)
        }

    # -------------------------------------------------------------------------------------------------- bounds, time

    async def test_bounds_are_the_first_and_the_next_offset(self, log: Log, make: Make) -> None:
        topic = await make(2)
        assert await log.bounds(topic) == {0: Bounds(0, 0), 1: Bounds(0, 0)}
        verdicts = await append(log, numbered(topic, range(7), partition=1))
        assert await log.bounds(topic) == {0: Bounds(0, 0), 1: Bounds(0, verdicts[-1].offset + 1)}

    async def test_a_time_leads_to_the_first_record_at_or_after_it(self, log: Log, make: Make) -> None:
        topic = await make(2)
        early = await append(log, numbered(topic, range(10)))
        (last,) = (await read(log.reader({TopicPartition(topic, 0): early[-1].offset}), 1))[-1:]
        await until(lambda: time.time_ns() // 1_000_000 > last.timestamp, "the clock goes on")
        late = await append(log, numbered(topic, range(10)))
        first_late = (await read(log.reader({TopicPartition(topic, 0): late[0].offset}), 1))[0]
        assert first_late.timestamp > last.timestamp
        assert await log.offsets_at(topic, first_late.timestamp) == {0: late[0].offset, 1: 0}
        assert await log.offsets_at(topic, last.timestamp + 1) == {0: late[0].offset, 1: 0}
        assert await log.offsets_at(topic, 0) == {0: early[0].offset, 1: 0}
        end = late[-1].offset + 1
        assert await log.offsets_at(topic, first_late.timestamp + 3_600_000) == {0: end, 1: 0}

    # ------------------------------------------------------------------------------------------------------ readers

    async def test_a_reader_begins_at_the_given_offset_and_ends_at_the_end(self, log: Log, make: Make) -> None:
        topic = await make(1)
        place = TopicPartition(topic, 0)
        offsets = [v.offset for v in await append(log, numbered(topic, range(10)))]
        reader = log.reader({place: offsets[4]})
        assert reader.position(place) == offsets[4]
        assert values(await read(reader, 3)) == [b"4", b"5", b"6"]
        assert reader.position(place) == offsets[7]
        assert values(await read(reader, 3)) == [b"7", b"8", b"9"]
        assert reader.position(place) == (await log.bounds(topic))[0].end
        await reader.close()

    async def test_a_reader_goes_where_it_is_sent(self, log: Log, make: Make) -> None:
        topic = await make(1)
        place = TopicPartition(topic, 0)
        offsets = [v.offset for v in await append(log, numbered(topic, range(10)))]
        reader = log.reader({place: 0})
        assert values(await read(reader, 5)) == [b"0", b"1", b"2", b"3", b"4"]
        reader.seek(place, offsets[1])
        assert reader.position(place) == offsets[1]
        assert values(await read(reader, 2)) == [b"1", b"2"]
        reader.seek(place, offsets[9])
        assert values(await read(reader, 1)) == [b"9"]
        await reader.close()

    async def test_a_reader_takes_no_more_than_asked_and_misses_nothing(self, log: Log, make: Make) -> None:
        topic = await make(3)
        await append(log, [NewRecord(topic, None, b"%d" % n, (), n % 3) for n in range(300)])
        reader = log.reader(dict.fromkeys(partitions_of(topic, 3), 0))
        seen: list[Record] = []
        async with asyncio.timeout(PATIENCE_S):
            while len(seen) < 300:
                records = await reader.poll(records_max=7, wait_ms=1_000)
                assert len(records) <= 7
                seen += records
        for partition in range(3):
            mine = [r.value for r in seen if r.partition == partition]
            assert mine == [b"%d" % n for n in range(partition, 300, 3)]
        await reader.close()

    async def test_a_reader_waits_as_long_as_requested(self, log: Log, make: Make) -> None:
        topic = await make(1)
        reader = log.reader({TopicPartition(topic, 0): 0})
        await reader.poll(records_max=10, wait_ms=100)
        begun = time.monotonic()
        assert list(await reader.poll(records_max=10, wait_ms=QUIET_MS)) == []
        assert QUIET_MS * 0.9 <= (time.monotonic() - begun) * 1_000 < QUIET_MS + 5_000
        await reader.close()

    async def test_a_waiting_reader_is_woken_by_an_append_elsewhere(
        self, log: Log, make: Make, open_log: OpenLog
    ) -> None:
        topic = await make(1)
        second = await open_log()
        reader = second.reader({TopicPartition(topic, 0): 0})
        poll = asyncio.ensure_future(reader.poll(records_max=10, wait_ms=int(PATIENCE_S * 1_000)))
        await asyncio.sleep(0.05)
        begun = time.monotonic()
        await append(log, numbered(topic, [1]))
        assert values(await poll) == [b"1"]
        assert time.monotonic() - begun < PATIENCE_S / 2
        await reader.close()

    async def test_a_topic_made_by_another_connection_is_known(self, log: Log, make: Make, open_log: OpenLog) -> None:
        second = await open_log()
        await second.topics()
        topic = await make(1)
        await append(second, numbered(topic, [1]))
        assert values(await read(second.reader({TopicPartition(topic, 0): 0}), 1)) == [b"1"]
