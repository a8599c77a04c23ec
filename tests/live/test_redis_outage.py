"""The board when Redis dies, stalls, loses a reply, forgets or is replaced."""

import asyncio
import json
import shutil
import signal
from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import pytest

from mesh.adapters.ports import Board, Count, Entry
from mesh.adapters.redis.board import RedisBoard
from mesh.core.errors import BoardUnavailable, Conflict
from tests.adapters.board_kit import PATIENCE_S, completed, take, within
from tests.live.redis_server import (
    BoardOn,
    Server,
    StartServer,
    board,
    board_on,
    redis,
    server,
    start_server,
    until,
    until_available,
)

pytestmark = pytest.mark.live
__all__ = ["board", "board_on", "server", "start_server"]  # fixtures

DEADLINE_MS = 250.0


# --------------------------------------------------------------------------------------------- gone and back again


@pytest.mark.parametrize("way", ["killed", "stalled"])
async def test_a_server_that_is_gone_costs_the_deadline_and_comes_back_by_itself(
    server: Server, board_on: BoardOn, way: str
) -> None:
    board = board_on(server.url, DEADLINE_MS)
    await until_available(board)
    await asyncio.gather(*(board.get("k") for _ in range(40)))  # connections that will be dead ones
    await server.signal(signal.SIGKILL if way == "killed" else signal.SIGSTOP)
    for call in (board.get("k"), board.put("k", b"1"), board.keys(), board.add("n", 1), board.watch()):
        async with within(DEADLINE_MS):
            with pytest.raises(BoardUnavailable) as gone:
                await call
        assert f"127.0.0.1:{server.port}" in str(gone.value)
    async with within(DEADLINE_MS):
        results = await asyncio.gather(*(board.get("k") for _ in range(64)), return_exceptions=True)
    assert {type(result) for result in results} == {BoardUnavailable}
    if way == "killed":
        await server.start()
    else:
        await server.signal(signal.SIGCONT)
    await until_available(board)
    assert (await board.put("k", b"2")).value == b"2"
    await asyncio.gather(*(board.get("k") for _ in range(40)))


async def test_closing_with_the_server_stalled_returns_in_time(server: Server, board_on: BoardOn) -> None:
    board = board_on(server.url, DEADLINE_MS)
    await until_available(board)
    changes = await board.watch()
    waiting = asyncio.ensure_future(anext(changes))
    await asyncio.sleep(0)
    await server.signal(signal.SIGSTOP)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    async with within(DEADLINE_MS):
        await board.close()
    await server.signal(signal.SIGCONT)


async def test_calls_that_were_given_up_do_not_use_up_connections(server: Server, board_on: BoardOn) -> None:
    board = board_on(server.url, 50)
    await until_available(board)
    for _ in range(3):
        await server.signal(signal.SIGSTOP)
        calls = [asyncio.ensure_future(board.get("k")) for _ in range(60)]
        await asyncio.sleep(0)
        for call in calls[::2]:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        await server.signal(signal.SIGCONT)
        await until_available(board)
    patient = board_on(server.url)
    assert await patient.get("k") is None
    for _ in range(5):
        await until_available(board)
    clients = (await redis(server.port, "INFO", "clients"))[1]
    assert int(clients.partition(b":")[2]) <= 16 + 1 + 1
    await board.close()


async def test_a_watch_goes_on_over_a_lost_connection_without_a_gap(server: Server, board: RedisBoard) -> None:
    async with aclosing(await board.watch("k*")) as changes:
        written = [await board.put("k", b"0")]
        seen = await take(changes, 1)
        waiting = asyncio.ensure_future(take(changes, 20))
        for number in range(20):
            if number % 5 == 0:
                await redis(server.port, "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            written.append(await _put_until_taken(board, "k", number))
        seen += await waiting
    assert seen == written


async def test_a_watch_outlives_a_restart_that_wiped_the_store(server: Server, board_on: BoardOn) -> None:
    board = board_on(server.url, 1_000)
    async with aclosing(await board.watch()) as changes:
        for number in range(10):
            await board.put("k", b"%d" % number)
        await take(changes, 10)
        waiting = asyncio.ensure_future(take(changes, 2))
        await server.signal(signal.SIGKILL)
        await server.start()
        written = [await _put_until_taken(board, "k", 100), await board.put("new", b"1")]
        assert await waiting == written


async def _put_until_taken(board: Board, key: str, number: int) -> Entry:
    """One write for certain: the same op_id until an answer comes through."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            try:
                return await board.put(key, b"%d" % number, op_id=f"op{number}")
            except BoardUnavailable:
                await asyncio.sleep(0.001)


# ------------------------------------------------------------------------------------------------------ lost replies


@asynccontextmanager
async def proxy(port: int) -> AsyncGenerator[tuple[int, asyncio.Event], None]:
    """A way to `port` that, when the event is set, passes one request on, swallows its reply and hangs up."""
    drop = asyncio.Event()
    open_ways: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, replies: bool) -> None:
        while data := await reader.read(65_536):
            if replies and drop.is_set():
                drop.clear()
                break
            writer.write(data)
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        open_ways[task] = writer
        redis_reader, redis_writer = await asyncio.open_connection("127.0.0.1", port)
        there = asyncio.ensure_future(pump(reader, redis_writer, replies=False))
        try:
            await pump(redis_reader, writer, replies=True)
            await there
        finally:
            redis_writer.close()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield listening.sockets[0].getsockname()[1], drop
    finally:
        listening.close()
        for writer in open_ways.values():
            writer.close()
        await asyncio.gather(*open_ways)


async def test_a_write_whose_reply_was_lost_is_answered_when_asked_again(
    server: Server, board: RedisBoard, board_on: BoardOn
) -> None:
    await completed(board)
    start = await board.put("k", b"0")
    async with proxy(server.port) as (port, drop):
        lossy = board_on(f"redis://127.0.0.1:{port}", 2_000)
        await lossy.start()

        drop.set()
        with pytest.raises(BoardUnavailable, match="board put"):
            await lossy.put("k", b"1", expect=start.version, by="a", op_id="task:1")
        again = await lossy.put("k", b"1", expect=start.version, by="a", op_id="task:1")
        assert [entry.value for entry in await board.history("k")] == [b"1", b"0"]
        assert await board.get("k") == again

        drop.set()
        with pytest.raises(BoardUnavailable):
            await lossy.append("list", b"1", items_max=5, op_id="task:2")
        assert (await lossy.append("list", b"1", items_max=5, op_id="task:2")).value == b"[1]"

        drop.set()
        with pytest.raises(BoardUnavailable):
            await lossy.add("n", 7, value_max=10, op_id="task:3")
        assert await lossy.add("n", 7, value_max=10, op_id="task:3") == Count(7, True)

        drop.set()
        with pytest.raises(BoardUnavailable):
            await lossy.delete("k", expect=again.version, op_id="task:4")
        assert await lossy.delete("k", expect=again.version, op_id="task:4") is True
        assert [len(await board.history(key)) for key in ("k", "list", "n")] == [3, 1, 1]

        drop.set()
        with pytest.raises(BoardUnavailable):
            await lossy.put("k", b"9", expect=start.version, op_id="task:5")
        with pytest.raises(Conflict):
            await lossy.put("k", b"9", expect=start.version, op_id="task:5")


# ------------------------------------------------------------------------------------------------------- incarnation


async def test_a_restart_that_kept_the_data_is_another_incarnation(
    start_server: StartServer, board_on: BoardOn
) -> None:
    server = await start_server("--appendonly", "yes", "--appendfsync", "always")
    board = board_on(server.url)
    entry = await board.put("k", b"1", op_id="op")
    await server.signal(signal.SIGKILL)
    await server.start()
    await until_available(board)
    found = await board.get("k")
    assert found is not None
    assert found.value == b"1"
    assert found.version != entry.version
    with pytest.raises(Conflict) as conflict:
        await board.put("k", b"2", expect=entry.version)
    assert conflict.value.current == found.version
    assert await board.put("k", b"1", op_id="op") == entry  # what was written is still known as written
    assert (await board.put("k", b"2", expect=found.version)).value == b"2"


async def test_no_version_from_before_a_rollback_passes_on_the_restored_data(
    tmp_path: Path, start_server: StartServer, board_on: BoardOn
) -> None:
    server = await start_server("--appendonly", "yes", "--appendfsync", "always")
    board = board_on(server.url)
    kept = await board.put("k", b"1")
    shutil.copytree(tmp_path / "redis", tmp_path / "copy")
    lost = [await board.put("k", b"%d" % number) for number in range(2, 6)]
    await server.signal(signal.SIGKILL)
    shutil.rmtree(tmp_path / "redis")
    (tmp_path / "copy").rename(tmp_path / "redis")
    await server.start()
    await until_available(board)
    await _no_old_version_passes(board, [kept, *lost])


async def test_no_version_from_before_a_failover_passes_on_the_new_primary(
    start_server: StartServer, board_on: BoardOn
) -> None:
    """Acknowledged writes are lost when the link to the replica is cut; their versions must not be taken for others."""
    primary, replica = await start_server("--repl-diskless-sync-delay", "0", name="a"), await start_server(name="b")
    old, new = board_on(primary.url), board_on(replica.url)
    kept = [await old.put("k", b"%d" % number) for number in range(20)]
    await redis(replica.port, "REPLICAOF", "127.0.0.1", str(primary.port))

    async def linked() -> bool:
        return b"master_link_status:up" in await redis(replica.port, "INFO", "replication")

    async def caught_up() -> bool:
        return await new.get("k") == kept[-1]

    await until(linked)
    kept.append(await old.put("k", b"20"))  # the first replica to come gives the primary another id, hence a life
    await until_available(new)
    await until(caught_up)
    with pytest.raises(BoardUnavailable) as refused:
        await new.put("k", b"-1")
    assert "READONLY" in str(refused.value)
    assert "primary" in refused.value.remedy
    async with aclosing(await new.watch()) as changes:
        await redis(replica.port, "REPLICAOF", "NO", "ONE")
        lost = [await old.put("k", b"%d" % number) for number in range(21, 41)]
        await _no_old_version_passes(new, [*kept, *lost])
        written = list(reversed(await new.history("k", limit=20)))
        assert await take(changes, 20) == written


async def _no_old_version_passes(board: Board, old: list[Entry]) -> None:
    """… while the counter runs over the very numbers the lost writes had."""
    counters = set()
    for _ in range(20):
        entry = await board.put("k", b'"new"')
        counters.add(entry.version.partition(":")[2])
        for entry in old:
            with pytest.raises(Conflict):
                await board.put("k", b'"wrong"', expect=entry.version)
    assert json.loads((await board.history("k", limit=1))[0].value) == "new"
    assert {entry.version.partition(":")[2] for entry in old[-2:]} <= counters
