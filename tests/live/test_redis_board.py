"""The board on a real Redis: the contract, and what happens when the server dies, stalls, forgets or is replaced."""

import asyncio
import json
import shutil
import signal
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from mesh.core.board import OPS_MAX, OPS_TTL_MS
from mesh.core.errors import BoardUnavailable, Conflict
from mesh.wire.ports import Board, Entry
from mesh.wire.redis import RedisBoard
from tests.live.servers import free_port
from tests.wire.board_contract import PATIENCE_S, BoardContract, OpenBoard, Wipe, take, within

pytestmark = pytest.mark.live

TIMEOUT_MS = 10_000.0
DEADLINE_MS = 250.0


async def redis(port: int, *words: str) -> list[bytes]:
    """Run one command past the board; the lines of the answer. Fails on an error."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        parts = [word.encode() for word in words]
        writer.write(b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%b\r\n" % (len(p), p) for p in parts))
        head = (await reader.readline()).rstrip()
        assert not head.startswith(b"-"), (words, head)
        if head == b"$-1":
            return []
        if head[:1] == b"$":
            return (await reader.readexactly(int(head[1:]) + 2)).splitlines()
        if head[:1] != b"*":
            return [head[1:]]
        found = []
        for _ in range(int(head[1:])):
            await reader.readline()
            found.append((await reader.readline()).rstrip())
        return found
    finally:
        writer.close()


class Server:
    """A Redis of our own, to be killed, stalled and started again."""

    def __init__(self, directory: Path, *options: str) -> None:
        self.port = free_port(1)
        self._directory = directory
        self._options = options
        self._process: asyncio.subprocess.Process | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    async def start(self) -> None:
        assert self._process is None, "it runs already"
        self._directory.mkdir(exist_ok=True)
        arguments = ("--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self._directory), "--save", "")
        self._process = await asyncio.create_subprocess_exec(
            "redis-server", *arguments, *self._options, stdout=asyncio.subprocess.DEVNULL
        )
        async with asyncio.timeout(PATIENCE_S):
            while True:
                try:
                    await redis(self.port, "PING")
                    return
                except (OSError, ValueError, AssertionError):
                    await asyncio.sleep(0.005)

    async def signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)
        if number in (signal.SIGKILL, signal.SIGTERM):
            await self._process.wait()
            self._process = None

    async def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            await self._process.wait()


StartServer = Callable[..., Awaitable[Server]]
BoardOn = Callable[..., RedisBoard]


@pytest.fixture
async def start_server(tmp_path: Path) -> AsyncIterator[StartServer]:
    servers: list[Server] = []

    async def start_server(*options: str, name: str = "redis") -> Server:
        servers.append(Server(tmp_path / name, *options))
        await servers[-1].start()
        return servers[-1]

    yield start_server
    for server in servers:
        await server.close()


@pytest.fixture
async def server(start_server: StartServer) -> Server:
    return await start_server()


@pytest.fixture
async def board_on() -> AsyncIterator[BoardOn]:
    boards: list[RedisBoard] = []

    def board_on(url: str, timeout_ms: float = TIMEOUT_MS, prefix: str = "mesh") -> RedisBoard:
        boards.append(RedisBoard(url, timeout_ms=timeout_ms, prefix=prefix))
        return boards[-1]

    yield board_on
    for board in boards:
        await board.close()


@pytest.fixture
def board(server: Server, board_on: BoardOn) -> RedisBoard:
    return board_on(server.url)


async def until(happened: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while True:
            if await happened():
                return
            await asyncio.sleep(0.005)


async def until_available(board: Board) -> None:
    async def answers() -> bool:
        try:
            await board.start()
        except BoardUnavailable:
            return False
        return True

    await until(answers)


class TestRedisBoard(BoardContract):
    @pytest.fixture
    def prefix(self) -> str:
        return f"t{uuid.uuid4().hex}"

    @pytest.fixture
    async def open_board(self, redis_url: str, prefix: str, board_on: BoardOn) -> AsyncIterator[OpenBoard]:
        async def open_board() -> Board:
            board = board_on(redis_url, prefix=prefix)
            await board.start()
            return board

        yield open_board
        await _forget(redis_url, prefix)

    @pytest.fixture
    def wipe(self, redis_url: str, prefix: str, open_board: OpenBoard) -> Wipe:
        async def wipe() -> Board:
            await _forget(redis_url, prefix)
            return await open_board()

        return wipe

    async def test_meshes_with_other_prefixes_share_nothing(
        self, redis_url: str, prefix: str, board: Board, board_on: BoardOn
    ) -> None:
        entry = await board.put("k", b"1")
        other = board_on(redis_url, prefix=f"{prefix}x")
        assert await other.get("k") is None
        assert await other.keys() == []
        assert await other.incarnation() != await board.incarnation()
        await other.put("k", b"2")
        assert await board.get("k") == entry
        await _forget(redis_url, f"{prefix}x")

    async def test_every_key_lies_in_one_slot(self, redis_url: str, prefix: str, board: Board) -> None:
        await board.append("a", b"1", items_max=5, op_id="x")
        await board.put("b", b"1", op_id="x")
        names = await redis(_port(redis_url), "KEYS", f"*{prefix}*")
        assert len(names) >= 8
        assert all(name.startswith(b"{" + prefix.encode() + b"}:") for name in names)

    async def test_a_boards_own_clock_does_not_date_entries(self, board: Board) -> None:
        entries = [await board.put("k", b"1") for _ in range(3)]
        assert [e.at_ms for e in entries] == sorted(e.at_ms for e in entries)
        assert abs(entries[-1].at_ms - time.time() * 1000) < 60_000


def _port(url: str) -> int:
    port = urlsplit(url).port
    assert port is not None
    return port


async def _forget(url: str, prefix: str) -> None:
    names = await redis(_port(url), "KEYS", "{" + prefix + "}*")
    if names:
        await redis(_port(url), "DEL", *(name.decode() for name in names))


# ------------------------------------------------------------------------------------------------- scripts, refusals


async def test_a_forgotten_script_is_sent_again(server: Server, board: RedisBoard) -> None:
    for number in range(5):
        await board.put("k", b"%d" % number)
    calls = {line.partition(b":")[0]: line for line in await redis(server.port, "INFO", "commandstats")}
    assert calls[b"cmdstat_eval"].startswith(b"cmdstat_eval:calls=1,")  # the text was sent once, for all five
    await redis(server.port, "SCRIPT", "FLUSH")
    assert (await board.put("k", b"2")).value == b"2"
    await redis(server.port, "SCRIPT", "FLUSH")
    counts = await asyncio.gather(*(board.add("n", 1) for _ in range(40)))
    assert sorted(count.value for count in counts) == list(range(1, 41))


async def test_a_full_redis_refuses_writes_typed_and_still_reads(server: Server, board: RedisBoard) -> None:
    entry = await board.put("k", b"1")
    await redis(server.port, "CONFIG", "SET", "maxmemory", "1")
    with pytest.raises(BoardUnavailable) as refused:
        await board.put("k", b"2")
    assert "OOM" in str(refused.value)
    assert "maxmemory" in refused.value.remedy
    assert await board.get("k") == entry
    await redis(server.port, "CONFIG", "SET", "maxmemory", "0")
    assert len(await board.history("k")) == 1
    assert (await board.put("k", b"3", expect=entry.version)).value == b"3"


async def test_a_wrong_password_and_a_missing_right_are_told(server: Server, board_on: BoardOn) -> None:
    rights = ("on", ">right", "~*", "+@all", "-info")
    await redis(server.port, "ACL", "SETUSER", "limited", *rights)
    for user, word in (("limited:wrong", "password"), ("limited:right", "INFO")):
        board = board_on(f"redis://{user}@127.0.0.1:{server.port}")
        with pytest.raises(BoardUnavailable) as refused:
            await board.get("k")
        assert word in f"{refused.value}"
        assert user.partition(":")[2] not in f"{refused.value}"
    await redis(server.port, "ACL", "SETUSER", "limited", "+info")
    board = board_on(f"redis://limited:right@127.0.0.1:{server.port}")
    await board.put("k", b"1")


async def test_a_key_of_somebody_else_is_unavailable_instead_of_overwritten(server: Server, board: RedisBoard) -> None:
    await redis(server.port, "SET", "{mesh}:board:past:k", "theirs")
    for call in (board.get("k"), board.put("k", b"1"), board.history("k")):
        with pytest.raises(BoardUnavailable, match="WRONGTYPE"):
            await call
    assert await redis(server.port, "GET", "{mesh}:board:past:k") == [b"theirs"]


async def test_answers_are_forgotten_a_day_after_the_last(server: Server, board: RedisBoard) -> None:
    await board.put("k", b"1", op_id="op")
    for name in ("{mesh}:board:ops:k", "{mesh}:board:order:k"):
        [left_ms] = await redis(server.port, "PTTL", name)
        assert OPS_TTL_MS - 60_000 < int(left_ms) <= OPS_TTL_MS


async def test_answers_are_remembered_up_to_a_number_a_key(server: Server, board: RedisBoard) -> None:
    await board.add("n", 1, op_id="first")
    await board.add("n", 1, op_id="second")
    fill = "for i = 3, ARGV[1] do redis.call('HSET', KEYS[1], i, '') redis.call('LPUSH', KEYS[2], i) end"
    answers, order = "{mesh}:board:ops:n", "{mesh}:board:order:n"
    await redis(server.port, "EVAL", fill, "2", answers, order, str(OPS_MAX))
    assert await board.add("n", 1, op_id="first") == (1, True)
    await board.add("n", 1, op_id="one-more")
    assert await redis(server.port, "HLEN", answers) == await redis(server.port, "LLEN", order) == [b"%d" % OPS_MAX]
    assert await board.add("n", 1, op_id="second") == (2, True)
    assert await board.add("n", 1, op_id="first") == (4, True)


async def test_a_lost_counter_never_gives_a_number_twice(server: Server, board: RedisBoard) -> None:
    before = await board.put("k", b"1")
    await redis(server.port, "DEL", "{mesh}:board:life")
    after = await board.put("k", b"2")
    assert [int(entry.version.partition(":")[2]) for entry in (before, after)] == [1, 2]
    with pytest.raises(Conflict):
        await board.put("k", b"3", expect=before.version)


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
        assert await lossy.add("n", 7, value_max=10, op_id="task:3") == (7, True)

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


async def test_a_restart_that_kept_the_data_is_another_life(start_server: StartServer, board_on: BoardOn) -> None:
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
