"""mesh.board on real Kafka: tidied up by a real trim, and read while that happens."""

import asyncio
import time
from pathlib import Path

import pytest

from mesh.adapters.clock import SystemClock
from mesh.adapters.kafka import KafkaLog
from mesh.adapters.ports import Appended, TopicSpec
from mesh.adapters.sqlite import SqliteBoard
from mesh.app.wiring import topic_specs
from mesh.core.board.changelog import BoardChange, BoardRestart, change_record, restart_record
from mesh.core.topology.loader import load
from mesh.runtime.board_changelog import read_mirror
from mesh.runtime.board_maintenance import BoardMaintainer

pytestmark = pytest.mark.live

CLOCK = SystemClock()


async def test_the_newest_record_of_each_key_outlives_a_trim_also_for_concurrent_readers(
    kafka_log: KafkaLog, tmp_path: Path
) -> None:
    mesh = load(f"""
mesh: {{name: t, prefix: mirror-{time.time_ns() % 10**8}, inbox: {{partitions: 1}}}}
topics: {{asks: {{ingress: ask, partitions: 1}}, answers: {{egress: answer, partitions: 1}}}}
agents: {{echo: {{run: "x:y", on: ask, emits: answer}}}}
""")
    specs: list[TopicSpec] = [spec for spec in topic_specs(mesh) if spec.name == mesh.board]
    await kafka_log.create_topics(specs)
    told = [BoardChange(f"k{n % 50}", b"%d" % n, f"aa:{n}", "echo/t1", "", 1_000 + n) for n in range(2_000)]
    records = [change_record(change, mesh) for change in told]
    records[1_000:1_000] = [restart_record(BoardRestart("0", "aa"), mesh)]
    assert all(isinstance(verdict, Appended) for verdict in await kafka_log.append(records))
    board = SqliteBoard(tmp_path / "board.db", timeout_ms=10_000)
    await board.start()
    keeper = BoardMaintainer(kafka_log, board, mesh, CLOCK, tidy_from_records=100)
    async with asyncio.timeout(60):
        mirrors = asyncio.gather(*(read_mirror(kafka_log, CLOCK, mesh) for _ in range(4)))
        copied = await keeper.tidy()
        after = await read_mirror(kafka_log, CLOCK, mesh)
    await board.close()
    assert copied == 50
    for mirror in (*await mirrors, after):
        assert {k: h.change for k, h in mirror.newest().items()} == {c.key: c for c in told[-50:]}
        assert mirror.incarnations == ["0", "aa"]
    bounds = (await kafka_log.bounds(mesh.board))[0]
    assert (bounds.start, bounds.end - bounds.start) == (2_001, 51)
