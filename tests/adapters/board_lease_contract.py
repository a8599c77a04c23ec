"""Leases: values that pass by themselves, written only over what was expected."""

import asyncio

import pytest

from mesh.adapters.ports import Board
from mesh.core.errors import InvalidInput
from tests.adapters.board_kit import PATIENCE_S, BoardFixtures, OpenBoard

LONG_MS = 600_000


async def passed(board: Board, key: str) -> None:
    """Until no lease stands there."""
    async with asyncio.timeout(PATIENCE_S):
        while await board.lease(key, b"1", ttl_ms=1, expect=b"0"):  # noqa: ASYNC110  # the store sends no event
            await asyncio.sleep(0.005)


class BoardLeaseContract(BoardFixtures):
    async def test_a_lease_is_had_by_one_and_seen_by_all(self, board: Board, open_board: OpenBoard) -> None:
        other = await open_board()
        assert await board.lease("l", b'"mine"', ttl_ms=LONG_MS) == b'"mine"'
        assert await other.lease("l", b'"theirs"', ttl_ms=LONG_MS) == b'"mine"'
        assert await other.lease("l", b'"theirs"', ttl_ms=LONG_MS, expect=b'"other"') == b'"mine"'
        assert await other.lease("m", b'"theirs"', ttl_ms=LONG_MS) == b'"theirs"'

    async def test_of_many_at_once_one_has_it(self, board: Board, open_board: OpenBoard) -> None:
        boards = [board, await open_board()]
        values = [b"%d" % n for n in range(20)]
        found = await asyncio.gather(*(boards[n % 2].lease("l", v, ttl_ms=LONG_MS) for n, v in enumerate(values)))
        assert len(set(found)) == 1
        assert found[0] in values

    async def test_the_holder_of_a_lease_may_renew_and_replace_it(self, board: Board) -> None:
        await board.lease("l", b"1", ttl_ms=LONG_MS)
        assert await board.lease("l", b"1", ttl_ms=LONG_MS, expect=b"1") == b"1"
        assert await board.lease("l", b'{"result": 2}', ttl_ms=LONG_MS, expect=b"1") == b'{"result": 2}'
        assert await board.lease("l", b"3", ttl_ms=LONG_MS, expect=b"1") == b'{"result": 2}'

    async def test_a_lease_passes_by_itself_and_then_it_is_not_what_was_expected(self, board: Board) -> None:
        await board.lease("l", b"1", ttl_ms=20)
        await passed(board, "l")
        assert await board.lease("l", b"1", ttl_ms=LONG_MS, expect=b"1") == b""
        assert await board.lease("l", b"2", ttl_ms=LONG_MS) == b"2"

    async def test_a_renewed_lease_lasts_longer(self, board: Board) -> None:
        await board.lease("l", b"1", ttl_ms=40)
        assert await board.lease("l", b"1", ttl_ms=LONG_MS, expect=b"1") == b"1"
        await board.lease("other", b"1", ttl_ms=40)
        await passed(board, "other")
        assert await board.lease("l", b"2", ttl_ms=LONG_MS) == b"1"

    async def test_leases_and_values_do_not_know_each_other(self, board: Board) -> None:
        await board.put("k", b"1")
        assert await board.lease("k", b"2", ttl_ms=LONG_MS) == b"2"
        await board.put("k", b"3")
        assert [entry.value for entry in await board.history("k")] == [b"3", b"1"]
        assert await board.keys() == ["k"]
        await board.delete("k")
        assert await board.get("k") is None
        assert await board.lease("k", b"4", ttl_ms=LONG_MS) == b"2"

    @pytest.mark.parametrize(
        ("key", "value", "ttl_ms", "code"),
        [
            ("", b"1", 5, "bad_key"),
            ("~k", b"1", 5, "bad_key"),
            ("k", b"x", 5, "unparseable"),
            ("k", b"1", 0, "bad_limit"),
        ],
    )
    async def test_what_cannot_be_a_lease_is_refused(
        self, board: Board, key: str, value: bytes, ttl_ms: int, code: str
    ) -> None:
        with pytest.raises(InvalidInput) as caught:
            await board.lease(key, value, ttl_ms=ttl_ms)
        assert caught.value.code == code
