"""Another process on the same file, for tests that kill, stop and time one: `python -m tests.adapters.sqlite.child`.

Says one thing a line on its standard output; `member` also takes orders, one a line, on its standard input.
"""

import argparse
import asyncio
import sys
import time
from collections.abc import Sequence

from mesh.adapters.ports import Appended, Commit, Member
from mesh.adapters.sqlite import SqliteLog
from mesh.core.errors import Fenced
from mesh.core.protocol.record import NewRecord, TopicPartition


def say(*words: object) -> None:
    print(*words, flush=True)


class Sayer:
    """A listener that says what it is told."""

    def assigned(self, partitions: Sequence[TopicPartition]) -> None:
        say("assigned", *(p.partition for p in partitions))

    async def revoked(self, partitions: Sequence[TopicPartition]) -> None:
        say("revoked", *(p.partition for p in partitions))


async def append(log: SqliteLog, topic: str) -> None:
    """Append for ever, three calls at a time; say each number once it is acknowledged."""

    async def one(number: int) -> None:
        records = [NewRecord(topic, b"%d" % number, b"%d.%d" % (number, part), (("n", b"x" * 50),)) for part in (0, 1)]
        assert all(isinstance(verdict, Appended) for verdict in await log.append(records))
        say(number)

    number = 0
    while True:
        await asyncio.gather(*(one(number + i) for i in range(3)))
        number += 3


async def member(log: SqliteLog, topic: str, session_timeout_ms: int) -> None:
    """Be a member; `commit PARTITION OFFSET` on standard input, answered `committed` or `fenced`."""
    joined = await log.join("group", [topic], Sayer(), session_timeout_ms=session_timeout_ms)
    say("joined")
    orders: asyncio.Queue[str] = asyncio.Queue()
    asyncio.get_running_loop().add_reader(sys.stdin, lambda: orders.put_nowait(sys.stdin.readline()))
    polling = asyncio.ensure_future(poll(joined))
    while order := (await orders.get()).split():
        place = TopicPartition(topic, int(order[1]))
        try:
            await joined.commit({place: Commit(int(order[2]))})
        except Fenced:
            say("fenced")
        else:
            say("committed")
    polling.cancel()


async def poll(joined: Member) -> None:
    while True:
        await joined.poll(records_max=10, wait_ms=1_000)


async def read(log: SqliteLog, topic: str) -> None:
    """Say of each record when it came, in nanoseconds of the machine's monotonic clock."""
    reader = log.reader({TopicPartition(topic, p): b.end for p, b in (await log.bounds(topic)).items()})
    say("ready")
    while True:
        for _ in await reader.poll(records_max=10, wait_ms=10_000):
            say(time.monotonic_ns())


async def main(role: str, path: str, topic: str, session_timeout_ms: int) -> None:
    log = SqliteLog(path)
    await log.start()
    if role == "append":
        await append(log, topic)
    elif role == "member":
        await member(log, topic, session_timeout_ms)
    elif role == "read":
        await read(log, topic)
    await log.close()
    say("closed")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("role", choices=("append", "member", "read", "open"))
    parser.add_argument("path")
    parser.add_argument("topic")
    parser.add_argument("--session-timeout-ms", type=int, default=1_000)
    arguments = parser.parse_args()
    asyncio.run(main(arguments.role, arguments.path, arguments.topic, arguments.session_timeout_ms))
