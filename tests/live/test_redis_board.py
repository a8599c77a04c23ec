"""The board on a real Redis: the contract, and how Redis is used."""

import asyncio
import time
import uuid
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import pytest

from mesh.adapters.ports import Board, Count
from mesh.adapters.redis.board import RedisBoard
from mesh.core.board.rules import OPS_MAX, OPS_TTL_MS
from mesh.core.errors import BoardUnavailable, Conflict
from tests.adapters.board_complete_contract import BoardCompleteContract
from tests.adapters.board_contract import BoardContract
from tests.adapters.board_kit import OpenBoard, Wipe, completed
from tests.live.redis_server import BoardOn, Server, board, board_on, redis, server, start_server

pytestmark = pytest.mark.live
__all__ = ["board", "board_on", "server", "start_server"]  # fixtures


class TestRedisBoard(BoardContract, BoardCompleteContract):
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
    await completed(board)
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


async def test_a_policy_that_evicts_keys_is_reported_at_the_start(
    server: Server, board: RedisBoard, caplog: pytest.LogCaptureFixture
) -> None:
    await redis(server.port, "CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    await board.start()
    assert caplog.records == []  # without maxmemory nothing is evicted
    await redis(server.port, "CONFIG", "SET", "maxmemory", "100mb")
    await board.start()
    (record,) = caplog.records
    fields = record.__dict__["fields"]
    assert record.levelname == "WARNING"
    assert (fields["expected"], fields["got"], fields["maxmemory"]) == ("noeviction", "allkeys-lru", 100 << 20)
    assert fields["fix"].startswith("redis-cli CONFIG SET maxmemory-policy noeviction")
    await redis(server.port, "CONFIG", "SET", "maxmemory-policy", "noeviction")
    await board.start()
    assert len(caplog.records) == 1


async def test_a_wrong_password_and_a_missing_right_are_reported(server: Server, board_on: BoardOn) -> None:
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


async def test_a_foreign_key_is_unavailable_instead_of_overwritten(server: Server, board: RedisBoard) -> None:
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
    await completed(board)
    await board.add("n", 1, op_id="first")
    await board.add("n", 1, op_id="second")
    fill = "for i = 3, ARGV[1] do redis.call('HSET', KEYS[1], i, '') redis.call('LPUSH', KEYS[2], i) end"
    answers, order = "{mesh}:board:ops:n", "{mesh}:board:order:n"
    await redis(server.port, "EVAL", fill, "2", answers, order, str(OPS_MAX))
    assert await board.add("n", 1, op_id="first") == Count(1, True)
    await board.add("n", 1, op_id="one-more")
    assert await redis(server.port, "HLEN", answers) == await redis(server.port, "LLEN", order) == [b"%d" % OPS_MAX]
    assert await board.add("n", 1, op_id="second") == Count(2, True)
    assert await board.add("n", 1, op_id="first") == Count(4, True)


async def test_a_lost_counter_never_gives_a_number_twice(server: Server, board: RedisBoard) -> None:
    before = await board.put("k", b"1")
    await redis(server.port, "DEL", "{mesh}:board:life")
    after = await board.put("k", b"2")
    assert [int(entry.version.partition(":")[2]) for entry in (before, after)] == [1, 2]
    with pytest.raises(Conflict):
        await board.put("k", b"3", expect=before.version)
