"""No oversized value stops a partition on Kafka: neither a large run, nor a header, nor a compressed bomb."""

import asyncio
import re
import secrets
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer

from bench.mesh_processes import Child, mesh_up
from mesh.core.protocol.codec import plain_headers
from mesh.core.protocol.record import Record
from tests.large_kit import TOPOLOGY, Large, large_mesh

pytestmark = pytest.mark.live
MIB = 1_048_576
ANY_BYTES_MAX = 1_000_000_000
UNPACKED_MB = 250


@pytest.fixture
def mark() -> str:
    return f"large-{secrets.token_hex(4)}"


async def letters(mesh: Large, count: int) -> list[Record]:
    """The dead letters, once they are there."""
    async with asyncio.timeout(60):
        while len(found := await mesh.records(mesh.topology.dead)) < count:
            pass
    return found


def produce(bootstrap: str, topic: str, value: bytes, headers: Any = None, **settings: str) -> None:
    """As any other producer writes: one record in a batch of its own."""
    producer = Producer({"bootstrap.servers": bootstrap, "message.max.bytes": ANY_BYTES_MAX, **settings})
    errors: list[Any] = []
    producer.produce(topic, value, partition=0, headers=headers, on_delivery=lambda error, _: errors.append(error))
    assert producer.flush(60) == 0
    assert errors == [None]


async def test_an_outcome_over_the_limit_is_cut_and_the_run_behind_it_ends(
    kafka_bootstrap: str, tmp_path: Path, mark: str
) -> None:
    async with large_mesh(f"kafka://{kafka_bootstrap}", tmp_path / "board.db", mark) as mesh:
        body: dict[str, Any] = await mesh.run("big", parts=170)
        assert (body["ending"], body["tasks"]) == ("completed", 171)
        assert len(body["results"]) + body["results_omitted"] == 170 * 64
        assert (await mesh.run("small"))["ending"] == "completed"
        assert len(await mesh.records(mesh.ends)) == 170 * 64 + 1, "each event left once"


@pytest.mark.parametrize("name", ["asks", "inbox", "tasks.split"])
async def test_a_header_that_no_dead_letter_can_carry_stops_no_partition(
    kafka_bootstrap: str, tmp_path: Path, mark: str, name: str
) -> None:
    async with large_mesh(f"kafka://{kafka_bootstrap}", tmp_path / "board.db", mark) as mesh:
        topic = f"asks.{mark}" if name == "asks" else f"{mark}.{name}"
        await asyncio.to_thread(produce, kafka_bootstrap, topic, b"not json", [("h" * 1_048_400, b"v")])
        await mesh.ended(await mesh.put_good(200))
        inbox = await mesh.records(mesh.topology.inbox)
        asked = [record for record in inbox if dict(plain_headers(record.headers)).get("ce_meshkind") == b"requested"]
        assert len(asked) == 200, "no request was written twice"
        headers = dict((await letters(mesh, 1))[0].headers)
        places = [headers[f"__dlq.errors.{part}"] for part in ("topic", "partition", "offset")]
        assert places == [topic.encode(), b"0", b"0"]
        assert headers["mesh-dlq-omitted"]


def peak_mib(child: Child) -> int:
    """The most memory that a process had so far."""
    assert child.process is not None
    status = Path(f"/proc/{child.process.pid}/status").read_text()
    found = re.search(r"VmHWM:\s+(\d+)", status)
    assert found is not None
    return int(found[1]) // 1_024


@pytest.mark.parametrize("compression", ["gzip", "zstd", "lz4"])
async def test_a_compressed_bomb_is_a_dead_letter_and_the_intake_keeps_its_size(
    kafka_bootstrap: str, tmp_path: Path, mark: str, compression: str
) -> None:
    """250 MB in one record, which is a quarter of a megabyte or less on the broker."""
    path = tmp_path / "topics.yaml"
    path.write_text(TOPOLOGY.replace("MARK", mark))
    async with large_mesh(f"kafka://{kafka_bootstrap}", tmp_path / "board.db", mark, up=False) as mesh:
        log, board = f"kafka://{kafka_bootstrap}", f"sqlite:{tmp_path / 'board.db'}"
        async with mesh_up([["intake"]], log=log, board=board, topology=str(path)) as (intake,):
            settings = {"compression.type": compression}
            await asyncio.to_thread(produce, kafka_bootstrap, mesh.asks, b"1" * 1_000_000, **settings)
            (ordinary,) = await letters(mesh, 1)
            before = peak_mib(intake)
            bomb = b"\0" * (UNPACKED_MB * 1_000_000)
            await asyncio.to_thread(produce, kafka_bootstrap, mesh.asks, bomb, **settings)
            await mesh.put_good(5)
            first, second = await letters(mesh, 2)
            assert first.offset == ordinary.offset
            headers = dict(second.headers)
            assert (headers["mesh-dlq-reason"], second.value) == (b"too_large", None)
            assert headers["__dlq.errors.offset"] == b"1"
            assert b"bytes unpacked" in headers["mesh-dlq-omitted"]
            async with asyncio.timeout(30):
                while len(await mesh.records(mesh.topology.inbox)) < 5:
                    pass
            assert intake.process is not None
            assert intake.process.returncode is None
            assert peak_mib(intake) - before < 80, "the unpacked batch was never in memory as a whole"


@pytest.mark.parametrize("name", ["inbox", "tasks.split"])
async def test_a_compressed_bomb_on_a_topic_of_the_mesh_is_a_dead_letter(
    kafka_bootstrap: str, tmp_path: Path, mark: str, name: str
) -> None:
    async with large_mesh(f"kafka://{kafka_bootstrap}", tmp_path / "board.db", mark) as mesh:
        bomb = b"\0" * 50_000_000
        settings = {"compression.type": "zstd"}
        await asyncio.to_thread(produce, kafka_bootstrap, f"{mark}.{name}", bomb, **settings)
        await mesh.ended(await mesh.put_good(20))
        headers = dict((await letters(mesh, 1))[0].headers)
        assert headers["mesh-dlq-reason"] == b"too_large"
        assert headers["__dlq.errors.topic"] == f"{mark}.{name}".encode()
