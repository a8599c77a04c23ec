"""Services side by side in one process."""

import asyncio
import gc
from collections.abc import Iterator
from pathlib import Path

import pytest

from mesh.core.errors import TopicsInvalid
from mesh.core.language import load
from mesh.process import Process, calm_collector, running
from mesh.settings import Settings
from mesh.wire.ports import TopicSpec
from mesh.wiring import open_log

TOPOLOGY = load("""
mesh: {name: t, inbox: {partitions: 2}}
topics: {asks: {ingress: ask, partitions: 1}, answers: {egress: answer, partitions: 1}}
agents: {echo: {run: "x:y", on: ask, emits: answer}}
""")


@pytest.fixture
def collector() -> Iterator[None]:
    before = gc.get_threshold()
    yield
    gc.unfreeze()
    gc.set_threshold(*before)


async def test_only_the_chosen_services_run(tmp_path: Path) -> None:
    settings = Settings(log=f"sqlite:{tmp_path / 'mesh.db'}")
    log = open_log(settings)
    await log.start()
    process = Process(log, TOPOLOGY, settings, services=["intake"])
    assert process.orchestrator is None
    assert process.worker is None
    async with running(process):
        assert set(await log.topics()) >= {"mesh.inbox", "mesh.tasks.echo", "asks", "answers"}
    await log.close()


async def test_an_error_of_one_service_ends_the_block_with_its_reason(tmp_path: Path) -> None:
    settings = Settings(log=f"sqlite:{tmp_path / 'mesh.db'}")
    log = open_log(settings)
    await log.start()
    await log.create_topics([TopicSpec("mesh.inbox", 5)])
    with pytest.raises(ExceptionGroup) as raised:
        async with asyncio.timeout(10), running(Process(log, TOPOLOGY, settings)):
            pass
    assert raised.value.subgroup(TopicsInvalid) is not None
    await log.close()


def test_the_collector_is_calmed_and_still_collects(collector: None) -> None:
    calm_collector()
    assert gc.isenabled()
    assert gc.get_threshold()[0] == 100_000
    assert gc.get_freeze_count() > 0
