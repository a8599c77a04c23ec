"""The skeleton of run1: what any orchestrator on aiokafka has to do for a run of one step, and nothing else.

    python -m bench.peers.skeleton orchestrator --bootstrap HOST:PORT --inbox … --tasks … --outcomes … --answers …
    python -m bench.peers.skeleton worker …

One process reads the inbox: a request becomes a task, an answer becomes an egress event and an outcome. The other one
reads tasks, does the work and writes answers to the inbox. The five records of a run have the topics, keys, headers
and sizes of the mesh in its plain form. Offsets are committed after the records that follow from them are
acknowledged. There is no state, no id that is checked, no limit, no timer and no retry: no mesh on this library can be
faster, so it is the ceiling that run1 is compared with. Runs in the environment of the peers.
"""

import argparse
import asyncio
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from bench.peers.work import worked

RECORDS_MAX = 500
APPENDS_MAX = 4
COMMIT_EVERY_S = 0.02
"""Batch size, appends under way and pause between commits are those of the mesh."""
DEADLINE = timedelta(minutes=10)
JSON = b"application/json"
MESH, AGENT = b"/mesh/bench", b"/agents/echo"
REQUESTED, SUCCEEDED = b"requested", b"succeeded"
OUTCOME = (
    b'{"run":"%b","request":{"ids":["%b"],"type":"bench.ask","fingerprints":["0123456789abcdef"]},"ending":"completed",'
    b'"results":[{"type":"bench.answer","id":"%b.0","agent":"echo","data":%b}],"refused":0,"refusals":[],"failures":[],'
    b'"drafts":[],"starved":[],"unrouted":[],"overspent":[],"tasks":1,"used":{"usd":0.0,"tokens":0},"opened":"%b",'
    b'"ended":"%b","took_ms":10,"generation":0,"redrives":[],"rules":2}'
)
Headers = list[tuple[str, bytes]]


class Topics(NamedTuple):
    """The names of the topics of a run."""

    inbox: str
    tasks: str
    outcomes: str
    answers: str


class Moment(NamedTuple):
    """The time of a batch as text, now and at the deadline."""

    now: bytes
    expiry: bytes

    @classmethod
    def at(cls, now: datetime) -> "Moment":
        """Return the moment of this time."""
        return cls(_text(now), _text(now + DEADLINE))


class Written(NamedTuple):
    """A record to append."""

    topic: str
    key: bytes
    value: bytes
    headers: Headers


def decided(record: Any, topics: Topics, moment: Moment) -> Iterator[Written]:
    """Yield the records that follow from a record of the inbox."""
    h = dict(record.headers)
    run, id = record.key, h["ce_id"]
    if h["ce_meshkind"] == REQUESTED:
        task = run + b"00000000"
        yield Written(
            topics.tasks,
            task,
            record.value,
            [
                ("ce_specversion", b"1.0"),
                ("ce_id", task + b":1"),
                ("ce_source", MESH),
                ("ce_type", h["ce_type"]),
                ("ce_time", moment.now),
                ("content-type", JSON),
                ("ce_correlationid", run),
                ("ce_meshkind", b"task"),
                ("ce_causationid", id),
                ("ce_meshtask", task),
                ("ce_meshagent", b"echo"),
                ("ce_meshdepth", b"1"),
                ("ce_meshpath", b"echo"),
                ("mesh-attempt", b"1"),
                ("ce_expirytime", moment.expiry),
                ("ce_subject", h["ce_subject"]),
            ],
        )
        return
    task, subject = h["ce_meshtask"], record.value[7 : record.value.index(b'"', 7)]
    yield Written(
        topics.answers,
        run,
        record.value,
        _published(task + b".0", AGENT, h["ce_type"], moment, run, b"egress", id, subject),
    )
    yield Written(
        topics.outcomes,
        run,
        OUTCOME % (run, subject, task, record.value, moment.now, moment.now),
        _published(task, MESH, b"mesh.run.completed", moment, run, b"outcome", id, subject),
    )


def answered(record: Any, topics: Topics, moment: Moment) -> Iterator[Written]:
    """Yield the answer to a task."""
    h = dict(record.headers)
    task, run = h["ce_meshtask"], h["ce_correlationid"]
    yield Written(
        topics.inbox,
        run,
        worked(record.value),
        [
            ("ce_specversion", b"1.0"),
            ("ce_id", task + b":1:succeeded"),
            ("ce_source", AGENT),
            ("ce_type", b"bench.answer"),
            ("ce_time", moment.now),
            ("content-type", JSON),
            ("ce_correlationid", run),
            ("ce_meshkind", SUCCEEDED),
            ("ce_causationid", h["ce_id"]),
            ("ce_meshtask", task),
            ("ce_meshagent", b"echo"),
            ("ce_meshdepth", b"1"),
            ("ce_meshpath", b"echo"),
            ("mesh-attempt", b"1"),
            ("mesh-origin", b"%b:%d:%d" % (topics.tasks.encode(), record.partition, record.offset)),
        ],
    )


def _published(
    id: bytes, source: bytes, type: bytes, moment: Moment, run: bytes, kind: bytes, cause: bytes, subject: bytes
) -> Headers:
    return [
        ("ce_specversion", b"1.0"),
        ("ce_id", id),
        ("ce_source", source),
        ("ce_type", type),
        ("ce_time", moment.now),
        ("content-type", JSON),
        ("ce_correlationid", run),
        ("ce_meshkind", kind),
        ("ce_causationid", cause),
        ("ce_subject", subject),
    ]


def _text(at: datetime) -> bytes:
    return f"{at.isoformat(timespec='milliseconds').removesuffix('+00:00')}Z".encode()


class Appender:
    """A producer that is given batches built here, one a partition, since the library's `send` costs three times as
    much a record."""

    def __init__(self, bootstrap: str) -> None:
        self._producer = AIOKafkaProducer(
            bootstrap_servers=bootstrap, acks="all", enable_idempotence=True, linger_ms=0, max_batch_size=1_000_000
        )
        self._partitions: dict[str, int] = {}

    async def start(self, topics: Iterable[str]) -> None:
        """Connect, and learn how many partitions these topics have."""
        await self._producer.start()
        for topic in topics:
            self._partitions[topic] = len(await self._producer.partitions_for(topic))

    async def stop(self) -> None:
        """Disconnect."""
        await self._producer.stop()

    async def send_one(self, record: Written) -> None:
        """Append a record by the library's own `send`, which joins those that wait, and wait for it."""
        topic, key, value, headers = record
        partition = zlib.crc32(key) % self._partitions[topic]
        await self._producer.send_and_wait(topic, value, key, partition, headers=headers)

    async def send(self, records: Iterable[Written]) -> "list[asyncio.Future[Any]]":
        """Hand records over and return the acknowledgements to wait for."""
        producer, partitions = self._producer, self._partitions
        batches: dict[tuple[str, int], Any] = {}
        sent = []
        for topic, key, value, headers in records:
            place = (topic, zlib.crc32(key) % partitions[topic])
            batch = batches.get(place)
            if batch is None:
                batch = batches[place] = producer.create_batch()
            if batch.append(key=key, value=value, timestamp=None, headers=headers) is None:
                sent.append(await producer.send_batch(batch, topic, partition=place[1]))
                batch = batches[place] = producer.create_batch()
                batch.append(key=key, value=value, timestamp=None, headers=headers)
        sent += [
            await producer.send_batch(batch, topic, partition=number) for (topic, number), batch in batches.items()
        ]
        return sent


Follow = Callable[[Any, Topics, Moment], Iterator[Written]]


class Loop:
    """Read, follow, append; up to four appends under way; commit what is acknowledged."""

    def __init__(self, bootstrap: str, source: str, topics: Topics, follow: Follow) -> None:
        self._consumer = AIOKafkaConsumer(
            source,
            bootstrap_servers=bootstrap,
            group_id=f"{source}-skeleton",
            enable_auto_commit=False,
            auto_offset_reset="earliest",
        )
        self._appender = Appender(bootstrap)
        self._topics, self._follow = topics, follow
        self._done: dict[Any, int] = {}

    async def run(self) -> None:
        """Never return."""
        await self._consumer.start()
        await self._appender.start(self._topics)
        free = asyncio.Semaphore(APPENDS_MAX)
        before: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        before.set_result(None)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._commit())
            while True:
                got = await self._consumer.getmany(timeout_ms=500, max_records=RECORDS_MAX)
                if not got:
                    continue
                await free.acquire()
                moment = Moment.at(datetime.now(UTC))
                records = (record for part in got.values() for record in part)
                sent = await self._appender.send(
                    written for record in records for written in self._follow(record, self._topics, moment)
                )
                ends = {place: part[-1].offset + 1 for place, part in got.items()}
                before = group.create_task(self._acknowledged(sent, before, ends, free))

    async def _acknowledged(
        self, sent: "list[asyncio.Future[Any]]", before: "asyncio.Future[Any]", ends: dict[Any, int], free: Any
    ) -> None:
        await asyncio.gather(*sent)
        await before
        self._done.update(ends)
        free.release()

    async def _commit(self) -> None:
        while True:
            await asyncio.sleep(COMMIT_EVERY_S)
            if self._done:
                done, self._done = self._done, {}
                await self._consumer.commit(done)


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("role", choices=("orchestrator", "worker"))
    parser.add_argument("--bootstrap", required=True)
    for name in Topics._fields:
        parser.add_argument(f"--{name}", required=True)
    said = parser.parse_args(arguments)
    topics = Topics(said.inbox, said.tasks, said.outcomes, said.answers)
    source, follow = (topics.inbox, decided) if said.role == "orchestrator" else (topics.tasks, answered)

    async def serve() -> None:
        await Loop(said.bootstrap, source, topics, follow).run()

    asyncio.run(serve())


if __name__ == "__main__":
    main()
