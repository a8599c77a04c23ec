"""Shared parts of the tests of checkpoints: a mesh with one inbox partition on an embedded log, and its records."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from mesh.adapters.ports import Log
from mesh.app.wiring import open_log, topic_specs
from mesh.core.protocol.codec import event_headers
from mesh.core.protocol.event import CANCELLED, REQUESTED, Event
from mesh.core.protocol.record import NewRecord, TopicPartition
from mesh.core.state.partition_state import Partition
from mesh.core.topology.loader import load
from mesh.core.topology.model import Topology
from mesh.settings import Settings
from tests.services.conftest import append, read_all

OLD = load("""
mesh: {name: t, prefix: mesh, inbox: {partitions: 1}}
topics: {asks: {ingress: ask, partitions: 1}, answers: {egress: answer, partitions: 1}}
agents: {echo: {run: "x:y", on: ask, emits: answer}}
""")
NEW = load("""
mesh: {name: t, prefix: mesh, inbox: {partitions: 1}}
topics: {asks: {ingress: ask, partitions: 1}, answers: {egress: answer, partitions: 1}}
agents: {other: {run: "x:y", on: ask, emits: answer}}
""")
INBOX = TopicPartition(OLD.inbox, 0)


@pytest.fixture
async def log(tmp_path: Path) -> AsyncIterator[Log]:
    log = open_log(Settings(log=f"sqlite:{tmp_path / 'mesh.db'}", record_bytes_max=20_000))
    await log.start()
    await log.create_topics(topic_specs(OLD))
    yield log
    await log.close()


def request(run_id: str, data: bytes = b"{}") -> NewRecord:
    asked = Event(f"e-{run_id}", "/test", "ask", REQUESTED, run_id, data)
    return NewRecord(OLD.inbox, run_id.encode(), asked.data, event_headers(asked))


def cancel(run_id: str) -> NewRecord:
    asked = Event(f"c-{run_id}", "/test", "mesh.cancel", CANCELLED, run_id, b"{}")
    return NewRecord(OLD.inbox, run_id.encode(), asked.data, event_headers(asked))


async def requested(log: Log, *run_ids: str) -> None:
    """Requests, each a batch of its own, so that the inbox can be trimmed between any two."""
    for run_id in run_ids:
        await append(log, request(run_id))


async def folded(log: Log, topology: Topology = OLD, *, until: int | None = None) -> Partition:
    """The state of the inbox, folded from its first record."""
    state = Partition(topology, number=0, partitions=1)
    for record in await read_all(log, OLD.inbox):
        if until is None or record.offset < until:
            state.step(record)
    return state
