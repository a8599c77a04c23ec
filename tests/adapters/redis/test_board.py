"""The board on Redis without a Redis: its URL, and servers that are gone, silent, or refuse."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from mesh.adapters.clock import SystemClock
from mesh.adapters.ports import Board
from mesh.adapters.redis.board import WATCH_TIMEOUT_MS, RedisBoard
from mesh.core.errors import BoardUnavailable, ConfigInvalid, InvalidInput
from tests.adapters.board_kit import within
from tests.adapters.loop_kit import stand_still, turns

SECRET = "s3cr3t-w0rd"
OPERATIONS: dict[str, Callable[[Board], Awaitable[object]]] = {
    "start": lambda board: board.start(),
    "incarnation": lambda board: board.incarnation(),
    "get": lambda board: board.get("k"),
    "put": lambda board: board.put("k", b"1"),
    "delete": lambda board: board.delete("k"),
    "append": lambda board: board.append("k", b"1", items_max=5),
    "add": lambda board: board.add("k", 1),
    "history": lambda board: board.history("k"),
    "keys": lambda board: board.keys(),
    "watch": lambda board: board.watch(),
}


@asynccontextmanager
async def server(reply: bytes | None, *, delay_s: float = 0.0) -> AsyncIterator[int]:
    """A server that answers every command with `reply`, or (None) never, after a delay. Yields its port."""
    served: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        served[task] = writer
        try:
            while line := await reader.readline():
                count = int(line[1:])
                for _ in range(count):
                    size = int((await reader.readline())[1:])
                    await reader.readexactly(size + 2)
                if reply is not None:
                    await asyncio.sleep(delay_s)
                    writer.write(reply)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the board gave up on us

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield listening.sockets[0].getsockname()[1]
    finally:
        listening.close()
        for writer in served.values():
            writer.close()
        await asyncio.gather(*served)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://127.0.0.1:6379/0", "redis://127.0.0.1:6379/0"),
        (f"redis://user:{SECRET}@host:7000/1", "redis://host:7000/1"),
        (f"rediss://:{SECRET}@host", "rediss://host:6379"),
        (f"redis://host:7000?password={SECRET}", "redis://host:7000"),
        ("redis://[::1]:7000", "redis://[::1]:7000"),
        (f"unix://user@/run/redis.sock?db=0&password={SECRET}", "unix:///run/redis.sock"),
    ],
)
def test_the_url_is_shown_without_secrets(url: str, shown: str) -> None:
    assert RedisBoard(url).url == shown


@pytest.mark.parametrize("url", ["", "host:6379", f"http://:{SECRET}@host", f"redis://:{SECRET}@host:port", "unix://"])
def test_a_url_that_is_invalid_is_refused_without_showing_it(url: str) -> None:
    with pytest.raises(ConfigInvalid) as refused:
        RedisBoard(url)
    assert "redis://" in str(refused.value)
    assert SECRET not in str(refused.value)


@pytest.mark.parametrize("prefix", ["", "a b", "{mesh}", "a:b", "x" * 65])
def test_a_prefix_that_would_break_the_hash_tag_is_refused(prefix: str) -> None:
    with pytest.raises(ConfigInvalid, match="prefix"):
        RedisBoard("redis://127.0.0.1", prefix=prefix)


@pytest.mark.parametrize("operation", OPERATIONS)
async def test_a_refused_connection_is_named_by_operation_and_host(unused_tcp_port: int, operation: str) -> None:
    board = RedisBoard(f"redis://user:{SECRET}@127.0.0.1:{unused_tcp_port}/0")
    async with within(250):
        with pytest.raises(BoardUnavailable) as gone:
            await OPERATIONS[operation](board)
    assert f"board {operation} " in str(gone.value)
    assert f"127.0.0.1:{unused_tcp_port}" in str(gone.value)
    assert SECRET not in str(gone.value)
    assert gone.value.retriable
    await board.close()


@pytest.mark.parametrize("operation", OPERATIONS)
async def test_a_server_that_never_answers_costs_the_deadline_and_no_more(operation: str) -> None:
    async with server(None) as port:
        board = RedisBoard(f"redis://127.0.0.1:{port}", timeout_ms=100)
        begun = time.monotonic()
        async with within(100):
            with pytest.raises(BoardUnavailable, match=f"board {operation} got no answer within 100 ms"):
                await OPERATIONS[operation](board)
        assert time.monotonic() - begun > 0.09
        async with within(100):
            await board.close()


async def test_waiting_for_a_free_connection_counts_against_the_deadline() -> None:
    async with server(None) as port:
        board = RedisBoard(f"redis://127.0.0.1:{port}", timeout_ms=200)
        async with within(200):
            results = await asyncio.gather(*(board.get("k") for _ in range(100)), return_exceptions=True)
        assert {type(result) for result in results} == {BoardUnavailable}
        await board.close()


async def test_a_long_queue_is_no_outage_while_the_server_answers() -> None:
    async with server(b"*1\r\n$6\r\nabsent\r\n", delay_s=0.02) as port:
        board = RedisBoard(f"redis://127.0.0.1:{port}", timeout_ms=500)
        began = time.monotonic()
        await asyncio.gather(*(board.get("k") for _ in range(448)))
        assert time.monotonic() - began > 0.5, "the queue was longer than the deadline"
        await board.close()


async def test_a_loop_that_was_held_up_reads_its_replies_before_it_gives_up() -> None:
    async with server(b"*1\r\n$6\r\nabsent\r\n") as port:
        board = RedisBoard(f"redis://127.0.0.1:{port}", timeout_ms=50)
        await board.get("k")
        call = asyncio.ensure_future(board.get("k"))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        stand_still(0.2)
        assert await call is None
        await board.close()


@pytest.mark.parametrize("connected", [True, False])
async def test_a_loop_that_is_held_up_again_and_again_reads_its_replies_before_it_gives_up(connected: bool) -> None:
    async with server(b"*1\r\n$6\r\nabsent\r\n") as port:
        board = RedisBoard(f"redis://127.0.0.1:{port}", timeout_ms=50)
        if connected:
            await board.get("k")
        call = asyncio.ensure_future(board.get("k"))
        asyncio.get_running_loop().call_soon(turns, 6, lambda: stand_still(0.06))
        assert await call is None
        await board.close()


async def test_callers_get_their_turn_in_the_order_they_came() -> None:
    async with server(b"*1\r\n$6\r\nabsent\r\n") as port:
        board = RedisBoard(f"redis://127.0.0.1:{port}", timeout_ms=20_000)
        calls = [0] * 64

        async def call_again_and_again(caller: int) -> None:
            while max(calls) < 40:
                await board.get("k")
                calls[caller] += 1

        await asyncio.gather(*(call_again_and_again(caller) for caller in range(64)))
        assert min(calls) > 20
        await board.close()


@pytest.mark.parametrize(
    ("reply", "remedy"),
    [
        ("OOM command not allowed when used memory > 'maxmemory'.", "maxmemory"),
        ("MISCONF Redis is configured to save RDB snapshots, but it's currently unable to persist to disk.", "disk"),
        ("READONLY You can't write against a read only replica.", "primary"),
        ("LOADING Redis is loading the dataset in memory", "again"),
        ("NOAUTH Authentication required.", "password"),
        ("NOPERM this user has no permissions to run the 'evalsha' command", "EVALSHA"),
        ("MOVED 3999 127.0.0.1:6381", "cluster"),
        ("CLUSTERDOWN Hash slot not served", "runs there"),
        ("BUSY Redis is busy running a script.", "runs there"),
        ("ERR something new", "runs there"),
    ],
)
async def test_a_refusal_of_redis_is_unavailable_with_its_remedy(reply: str, remedy: str) -> None:
    async with server(f"-{reply}\r\n".encode()) as port:
        board = RedisBoard(f"redis://127.0.0.1:{port}", timeout_ms=2_000)
        with pytest.raises(BoardUnavailable) as refused:
            await board.put("k", b"1")
        assert "board put failed" in str(refused.value)
        assert remedy in refused.value.remedy
        await board.close()


async def test_a_wrong_password_is_reported_without_showing_it() -> None:
    async with server(b"-WRONGPASS invalid username-password pair or user is disabled.\r\n") as port:
        board = RedisBoard(f"redis://user:{SECRET}@127.0.0.1:{port}", timeout_ms=2_000)
        with pytest.raises(BoardUnavailable) as refused:
            await board.get("k")
        assert "password" in refused.value.remedy
        error: BaseException | None = refused.value
        while error is not None:
            assert SECRET not in f"{error} {error!r}"
            error = error.__cause__ or error.__context__
        await board.close()


async def test_a_server_that_speaks_something_else_is_unavailable() -> None:
    async with server(b"HTTP/1.1 400 Bad Request\r\n\r\n") as port:
        board = RedisBoard(f"redis://127.0.0.1:{port}")
        with pytest.raises(BoardUnavailable):
            await board.get("k")
        await board.close()


class EagerClock(SystemClock):
    """Does not wait, but says that it did."""

    def __init__(self) -> None:
        self.slept_ms = 0.0

    def monotonic_ms(self) -> float:
        return self.slept_ms

    async def sleep_ms(self, delay_ms: float) -> None:
        self.slept_ms += delay_ms


async def test_a_watch_loses_patience_with_a_server_that_stays_away() -> None:
    clock = EagerClock()
    async with server(b"*6\r\n$6\r\nanswer\r\n$3\r\nabc" + b"\r\n$1\r\n0" * 3 + b"\r\n$0\r\n\r\n") as port:
        board = RedisBoard(f"redis://127.0.0.1:{port}", timeout_ms=5_000, clock=clock)
        changes = await board.watch()
    with pytest.raises(BoardUnavailable, match="board watch"):
        await anext(changes)
    assert clock.slept_ms > WATCH_TIMEOUT_MS
    await board.close()


async def test_bad_input_is_refused_before_the_server_is_asked(unused_tcp_port: int) -> None:
    board = RedisBoard(f"redis://127.0.0.1:{unused_tcp_port}")
    for call in (board.put("k", b"NaN"), board.get("a b"), board.keys("["), board.put("k", b"1", expect="1")):
        with pytest.raises(InvalidInput):
            await call
