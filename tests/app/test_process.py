"""Services side by side in one process."""

import asyncio
import gc
from pathlib import Path

import pytest

from mesh.adapters.clock import SystemClock
from mesh.adapters.ports import TopicSpec
from mesh.adapters.sqlite import SqliteBoard
from mesh.app.process import Process, running, tune_garbage_collector
from mesh.app.wiring import open_board, open_log, topic_specs
from mesh.core.board.changelog import BoardChange, change_record
from mesh.core.errors import TopicsInvalid
from mesh.core.task.agent import describe
from mesh.core.topology.loader import load
from mesh.runtime.board_changelog import read_mirror
from mesh.services.intake import Intake
from mesh.settings import Settings

TOPOLOGY = load("""
mesh: {name: t, prefix: mesh, inbox: {partitions: 2}}
topics: {asks: {ingress: ask, partitions: 1}, answers: {egress: answer, partitions: 1}}
agents: {echo: {run: "x:y", on: ask, emits: answer}}
""")


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


async def test_a_service_that_is_cancelled_from_within_is_an_error_and_no_silent_end(tmp_path: Path) -> None:
    class CutShort(Intake):
        """An intake in which something cancelled what it waited for."""

        async def run(self, stop: asyncio.Event) -> None:
            inner = asyncio.ensure_future(stop.wait())
            inner.cancel()
            await inner

    settings = Settings(log=f"sqlite:{tmp_path / 'mesh.db'}")
    log = open_log(settings)
    await log.start()
    await log.create_topics(topic_specs(TOPOLOGY))
    process = Process(log, TOPOLOGY, settings, services=[])
    process.intake = CutShort(log, TOPOLOGY, SystemClock())
    async with asyncio.timeout(10):
        with pytest.raises(ExceptionGroup) as raised:
            await process.run()
    (error,) = raised.value.exceptions
    assert str(error).startswith("the cutshort was cancelled by code inside it")
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


@pytest.mark.usefixtures("collector")
def test_the_collector_is_calmed_and_still_collects() -> None:
    gc.collect()
    kept = [[number] for number in range(1_000)]
    frozen = gc.get_freeze_count()
    tune_garbage_collector()
    assert gc.isenabled()
    assert gc.get_threshold()[0] == 100_000
    assert gc.get_freeze_count() >= frozen + len(kept)


async def test_a_board_elsewhere_is_watched_over_where_agents_run(tmp_path: Path) -> None:
    settings = Settings(log=f"sqlite:{tmp_path / 'mesh.db'}")
    log, beside, elsewhere = open_log(settings), open_board(settings, "mesh"), SqliteBoard(tmp_path / "board.db")

    async def echo(ask: dict[str, int]) -> dict[str, int]:
        return ask

    agents = {"echo": describe(echo)}
    assert Process(log, TOPOLOGY, settings, agents=agents, board=beside).board_maintainer is None
    assert Process(log, TOPOLOGY, settings, services=["orchestrator"], board=elsewhere).board_maintainer is None
    process = Process(log, TOPOLOGY, settings, agents=agents, board=elsewhere)
    assert process.board_maintainer is not None
    await log.start()
    await elsewhere.start()
    await log.create_topics([TopicSpec("mesh.board", 1)])
    told = BoardChange("k", b"1", "before:1", "echo/t1")
    await log.append([change_record(told, TOPOLOGY)])
    async with running(process), asyncio.timeout(10):
        while (await log.bounds("mesh.board"))[0].end < 2:  # noqa: ASYNC110  # another process would write it
            await asyncio.sleep(0.005)
    assert (await read_mirror(log, SystemClock(), TOPOLOGY)).incarnations == ["before", await elsewhere.incarnation()]
    await elsewhere.close()
    await log.close()
