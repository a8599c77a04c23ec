"""Redis dies with all that it held, or comes back as it was before: noticed, told, and filled again from the log."""

import asyncio
import json
import shutil
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from mesh import Context, Emit
from mesh.adapters.clock import SystemClock
from mesh.adapters.ports import Log
from mesh.adapters.redis.board import RedisBoard
from mesh.app.process import Process, running
from mesh.app.wiring import open_log
from mesh.client import Mesh
from mesh.core.board.changelog import BoardRestart
from mesh.core.errors import Conflict
from mesh.core.task.agent import describe
from mesh.core.topology.loader import load
from mesh.runtime.board_changelog import read_mirror
from mesh.runtime.board_rebuild import Rebuild, RebuildPlan
from mesh.settings import Settings
from tests.cli.conftest import PROJECT, Cli
from tests.live.redis_server import (
    BoardOn,
    Server,
    StartServer,
    board,
    board_on,
    server,
    start_server,
    until_available,
)

pytestmark = pytest.mark.live
__all__ = ["board", "board_on", "server", "start_server"]  # fixtures

DESK = load("""
mesh: {name: desk, prefix: mesh, inbox: {partitions: 2}}
topics: {sales: {ingress: sale, partitions: 1}, booked: {egress: sold, partitions: 1}}
agents: {clerk: {run: "x:y", on: sale, emits: sold, timeout: 5s, retry: {attempts: 20, first: 20ms, max: 100ms}}}
""")
CLOCK = SystemClock()
SALES = 60


async def clerk(sale: dict[str, Any], ctx: Context) -> Emit:
    """Writes in all ways that there are, and does not need the board when it is asked not to."""
    if sale["board"]:
        await ctx.board.put(f"sales/{sale['n']}", {"n": sale["n"]})
        await ctx.board.add("count")
        await ctx.board.append("last", sale["n"], items_max=5)
    return Emit("sold", {"n": sale["n"]})


@asynccontextmanager
async def desk(log: Log, board: RedisBoard) -> AsyncIterator[Mesh]:
    """A whole mesh in this process, and a client of it."""
    process = Process(log, DESK, Settings(), agents={"clerk": describe(clerk)}, board=board)
    async with running(process):
        client = Mesh(log, DESK)
        yield client
        await client.close()


@pytest.fixture
async def log(tmp_path: Path) -> AsyncIterator[Log]:
    log = open_log(Settings(log=f"sqlite:{tmp_path / 'mesh.db'}"))
    await log.start()
    yield log
    await log.close()


async def sell(client: Mesh, first: int, *, board: bool = True) -> set[str]:
    """Return the endings of this number of runs."""
    runs = [await client.publish("sale", {"n": n, "board": board}, id=f"s{n}") for n in range(first, first + SALES)]
    return {(await run.outcome(timeout_s=60)).ending for run in runs}


async def held(board: RedisBoard) -> dict[str, Any]:
    entries = [await board.get(key) for key in await board.keys()]
    return {entry.key: json.loads(entry.value) for entry in entries if entry is not None}


async def noticed(log: Log, new: str) -> list[BoardRestart]:
    """Return the restarts on the log, once it contains this incarnation."""
    async with asyncio.timeout(20):
        while True:
            mirror = await read_mirror(log, CLOCK, DESK)
            if new in mirror.incarnations:
                return mirror.restarts
            await asyncio.sleep(0.005)


async def rebuilt(log: Log, board: RedisBoard) -> RebuildPlan:
    rebuild = Rebuild(log, board, DESK, CLOCK)
    plan = await rebuild.plan()
    assert [done async for done in rebuild.write(plan.missing) if done.entry is None] == []
    return plan


async def until_complete(board: RedisBoard) -> None:
    async with asyncio.timeout(20):
        await until_available(board)
        while not (await board.completeness()).complete:  # noqa: ASYNC110  # the server has no event for it
            await asyncio.sleep(0.02)


async def test_a_redis_that_came_back_empty_is_filled_again_and_no_count_is_lost(
    server: Server, board_on: BoardOn, log: Log
) -> None:
    board = board_on(server.url, 250)
    async with desk(log, board) as client:
        assert await sell(client, 0) == {"completed"}
        before, old = await held(board), await board.incarnation()
        version = (await board.put("seen", b"1")).version
        assert (len(before), before["count"]) == (SALES + 2, SALES)

        await server.signal(signal.SIGKILL)
        assert await sell(client, 1_000, board=False) == {"completed"}, "runs without the board go on"
        await server.start()
        assert await sell(client, 2_000) == {"completed"}, "counters wait until their values are back"
        new = await board.incarnation()
        assert [(restart.old, restart.new) for restart in await noticed(log, new)] == [(old, new)]
        await until_complete(board)
        with pytest.raises(Conflict):
            await board.put("seen", b"2", expect=version)
        assert (await rebuilt(log, board)).missing == []
    after = await held(board)
    assert after["count"] == 2 * SALES, "the counter goes on from its value before the loss"
    assert len(after["last"]) == 5
    assert {key: after[key] for key in before if key.startswith("sales/")} == {
        key: before[key] for key in before if key.startswith("sales/")
    }


async def test_a_redis_that_went_back_in_time_is_brought_forward(
    tmp_path: Path, start_server: StartServer, board_on: BoardOn, log: Log
) -> None:
    server = await start_server("--appendonly", "yes", "--appendfsync", "always")
    board = board_on(server.url)
    async with desk(log, board) as client:
        assert await sell(client, 0) == {"completed"}
        shutil.copytree(tmp_path / "redis", tmp_path / "copy")
        assert await sell(client, 1_000) == {"completed"}
        before = await held(board)
        await server.signal(signal.SIGKILL)
        shutil.rmtree(tmp_path / "redis")
        (tmp_path / "copy").rename(tmp_path / "redis")
        await server.start()
        await until_complete(board)
        assert await held(board) == before
        assert (await rebuilt(log, board)).missing == []


async def test_a_redis_that_kept_everything_over_its_restart_is_complete_without_a_rebuild(
    start_server: StartServer, board_on: BoardOn, log: Log
) -> None:
    server = await start_server("--appendonly", "yes", "--appendfsync", "always")
    board = board_on(server.url)
    async with desk(log, board) as client:
        assert await sell(client, 0) == {"completed"}
        before, old = await held(board), await board.incarnation()
        await server.signal(signal.SIGKILL)
        await server.start()
        await until_available(board)
        found = await board.completeness()
        assert (found.complete, found.before) == (False, old)
        assert len(await noticed(log, await board.incarnation())) == 1
        await until_complete(board)
        plan = await rebuilt(log, board)
    assert (plan.missing, plan.count("same")) == ([], SALES + 2)
    assert await held(board) == before
    assert [len(await board.history(key)) for key in ("count", "sales/0")] == [min(SALES, 100), 1]


async def test_up_puts_lost_values_back_and_says_so(server: Server, tmp_path: Path) -> None:
    shutil.copytree(PROJECT, tmp_path / "desk", ignore=shutil.ignore_patterns("__pycache__"))
    cli = Cli(None, tmp_path / "desk", tmp_path)
    cli.environ["MESH_BOARD"] = server.url
    with cli.up() as running:
        for name in ("ada", "bob"):
            assert cli("publish", "hello", json.dumps({"name": name}), "--wait").code == 0
        await server.signal(signal.SIGKILL)
        began_s = time.monotonic()
        gone = cli("board", "rebuild")
        assert gone.code == 4
        assert time.monotonic() - began_s < 10
        await server.start()
        running.err_until("began a new incarnation")
        running.err_until("lost values of the board were restored")
        assert cli("board", "get", "greetings/ada", "--json").rows[0]["value"] == {"name": "ada"}
        assert len(cli("board", "history", "--json").rows) == 1
        running.signal(signal.SIGTERM)
        assert running.end().code == 143


async def test_without_a_worker_rebuild_puts_lost_values_back(server: Server, tmp_path: Path) -> None:
    shutil.copytree(PROJECT, tmp_path / "desk", ignore=shutil.ignore_patterns("__pycache__"))
    cli = Cli(None, tmp_path / "desk", tmp_path)
    cli.environ["MESH_BOARD"] = server.url
    with cli.up() as running:
        for name in ("ada", "bob"):
            assert cli("publish", "hello", json.dumps({"name": name}), "--wait").code == 0
        running.signal(signal.SIGTERM)
        assert running.end().code == 143
    await server.signal(signal.SIGKILL)
    await server.start()
    assert cli("board", "keys").out == ""
    planned = cli("board", "rebuild")
    assert (planned.code, planned.err) == (0, "2 keys of 2 would be written; --yes does it\n")
    assert cli("board", "rebuild", "--yes").out == "✓ 2 keys written\n"
    assert cli("board", "get", "greetings/ada", "--json").rows[0]["value"] == {"name": "ada"}
