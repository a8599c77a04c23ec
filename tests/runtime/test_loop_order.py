"""With ordered events, the loop has one append under way: none overtakes one that fails."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from mesh.adapters.ports import Appended, Commit, Refused, TopicSpec
from mesh.adapters.sqlite import SqliteLog
from mesh.app.wiring import topic_specs
from mesh.core.errors import LogUnavailable
from mesh.core.protocol.record import NewRecord, Record, TopicPartition
from mesh.core.topology.model import TopicRule, Topology
from mesh.runtime.loop import Loop
from tests.builders import topology as mesh
from tests.services.conftest import append, read_all, read_until

PLAIN = mesh(echo="ask -> answer")
ORDERED = replace(PLAIN, topics={"asks": TopicRule("asks", ingress="ask", ordered=True)})


class Copy:
    """A stage that copies `in` to `out`."""

    def __init__(self) -> None:
        self.copied = 0

    async def restore(self, partition: TopicPartition, commit: Commit | None) -> int | None:
        return None

    async def step(self, partition: TopicPartition, records: Sequence[Record]) -> Sequence[NewRecord]:
        self.copied += len(records)
        return [NewRecord("out", r.key, r.value, (), r.partition) for r in records]

    def drop(self, partition: TopicPartition) -> None: ...


class FailsOnce(SqliteLog):
    """Its first append of copies is lost after a while; it takes all others."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.asked = 0
        self.fails = asyncio.Event()

    async def append(self, records: Sequence[NewRecord]) -> Sequence[Appended | Refused]:
        if records[0].topic == "out":
            self.asked += 1
            if self.asked == 1:
                await self.fails.wait()
                raise LogUnavailable("the first append is lost")
        return await super().append(records)


@pytest.mark.parametrize(("topology", "kept"), [(ORDERED, []), (PLAIN, [b"2", b"3"])])
async def test_where_events_are_ordered_no_append_overtakes_one_that_fails(
    tmp_path: Path, topology: Topology, kept: list[bytes]
) -> None:
    log = failing = FailsOnce(tmp_path / "mesh.db")
    await failing.start()
    await log.create_topics([*topic_specs(PLAIN), TopicSpec("in", 1), TopicSpec("out", 1)])
    stage = Copy()
    copying = Loop(failing, stage, topology, group="copy", topics=["in"], records_max=1, session_timeout_ms=2_000)
    running = asyncio.ensure_future(copying.run(asyncio.Event()))
    await append(log, *(NewRecord("in", b"k", b"%d" % n, (), 0) for n in (1, 2, 3)))
    async with asyncio.timeout(20):
        while stage.copied < 3 or (kept and failing.asked < 3):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        if kept:
            await read_until(log, "out", 2)
        failing.fails.set()
        await asyncio.wait((running,))
    assert isinstance(running.exception(), LogUnavailable)
    assert [record.value for record in await read_all(log, "out")] == kept
    await failing.close()
