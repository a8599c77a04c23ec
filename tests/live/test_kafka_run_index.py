"""The index of runs over real Kafka: built, behind, deleted; topics made anew and with another partition."""

import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions

from bench import run_log
from mesh.adapters.kafka import KafkaLog
from mesh.adapters.sqlite.run_index import RunIndexFile
from mesh.app.wiring import load_topology
from mesh.core.history.run_query import RunQuery
from mesh.core.topology.model import Topology
from mesh.operations.run_index import RunIndex, identity_of
from mesh.operations.run_selection import select_runs
from mesh.operations.runs import Runs

pytestmark = pytest.mark.live
RUNS = 60


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A mesh with topics of its own."""
    name = f"found-{time.time_ns() % 10**8}"
    text = run_log.TEXT.replace("name: found,", f"name: {name},").replace("  orders.", f"  {name}.orders.")
    (tmp_path / "topics.yaml").write_text(text)
    return tmp_path


@pytest.fixture
async def admin(kafka_bootstrap: str) -> AsyncIterator[AIOKafkaAdminClient]:
    client = AIOKafkaAdminClient(bootstrap_servers=kafka_bootstrap)
    await client.start()
    yield client
    await client.close()


async def listed(log: KafkaLog, mesh: Topology, path: Path) -> tuple[list[str], int, str]:
    """Subjects of the latest runs, number of records read for it, and why the index was built again."""
    file, read = RunIndexFile(path), [0]
    file.open(identity_of(mesh, await log.topics()))
    index = RunIndex(log, mesh, file)
    assert await index.catch_up(lambda step, done, total: read.append(step))
    rows = await select_runs(Runs(log, mesh, finder=index), index, RunQuery(), limit=1_000)
    dropped = file.dropped
    file.close()
    return sorted(row.subject for row in rows), sum(read), dropped


async def test_an_index_is_built_on_and_built_again(kafka_log: KafkaLog, folder: Path) -> None:
    mesh, path = load_topology(str(folder / "topics.yaml")), folder / "runs.db"
    await run_log.write(folder, RUNS, kafka_log.url)
    subjects, records, _ = await listed(kafka_log, mesh, path)
    assert subjects == [f"order-{n:08d}" for n in range(RUNS)]
    assert records >= RUNS * 4
    assert await listed(kafka_log, mesh, path) == (subjects, 0, "")
    path.unlink()
    assert await listed(kafka_log, mesh, path) == (subjects, records, "")
    file = RunIndexFile(path)
    file.open(identity_of(mesh, await kafka_log.topics()))
    index = RunIndex(kafka_log, mesh, file)
    assert await index.catch_up()
    history = await Runs(kafka_log, mesh, finder=index).find("order-00000007")
    assert history.subject == "order-00000007"
    assert history.state in ("completed", "failed")
    file.close()


async def test_topics_that_were_made_anew_are_another_log(
    kafka_log: KafkaLog, folder: Path, admin: AIOKafkaAdminClient
) -> None:
    mesh, path = load_topology(str(folder / "topics.yaml")), folder / "runs.db"
    await run_log.write(folder, RUNS, kafka_log.url)
    await listed(kafka_log, mesh, path)
    names = [name for name in await kafka_log.topics() if name.startswith(mesh.prefix)]
    await admin.delete_topics(names)
    deadline_s = time.monotonic() + 30
    while set(names) & (await kafka_log.topics()).keys():
        assert time.monotonic() < deadline_s
    await run_log.write(folder, RUNS // 2, kafka_log.url)
    subjects, _, dropped = await listed(kafka_log, mesh, path)
    assert subjects == [f"order-{n:08d}" for n in range(RUNS // 2)]
    assert "another" in dropped


async def test_with_another_partition_the_index_is_built_again(
    kafka_log: KafkaLog, folder: Path, admin: AIOKafkaAdminClient
) -> None:
    mesh, path = load_topology(str(folder / "topics.yaml")), folder / "runs.db"
    await run_log.write(folder, RUNS, kafka_log.url)
    subjects, records, _ = await listed(kafka_log, mesh, path)
    count = (await kafka_log.topics())[mesh.outcomes]
    await admin.create_partitions({mesh.outcomes: NewPartitions(total_count=count + 1)})
    deadline_s = time.monotonic() + 30
    while (await kafka_log.topics())[mesh.outcomes] == count:
        assert time.monotonic() < deadline_s
    again = await listed(kafka_log, mesh, path)
    assert again == (subjects, records, "it was made for another log or by another version")
