"""The contract of every Board for its history, its keys, and the report of changes."""

import asyncio
from contextlib import aclosing
from statistics import median

import pytest

from mesh.adapters.ports import ABSENT, Board
from mesh.core.board.rules import HISTORY_BYTES_MAX, HISTORY_MAX
from mesh.core.errors import Conflict, InvalidInput
from tests.adapters.board_kit import PATIENCE_S, BoardFixtures, OpenBoard, put_many, take, values


class BoardFollowContract(BoardFixtures):
    # --------------------------------------------------------------------------------------------------------- history

    async def test_history_begins_with_the_newest(self, board: Board) -> None:
        entries = [await board.put("k", b"%d" % number, by=f"w{number}") for number in range(5)]
        assert await board.history("k") == entries[::-1]
        assert await board.history("k", limit=2) == entries[:2:-1]

    async def test_history_keeps_the_last_thousand(self, board: Board) -> None:
        await put_many(board, "k", HISTORY_MAX + 12)
        kept = values(await board.history("k", limit=5_000))
        assert kept == list(range(HISTORY_MAX + 11, 11, -1))

    async def test_history_of_large_values_stays_within_its_bytes(self, board: Board) -> None:
        size = 60_000
        for number in range(25):
            await board.put("k", b'"%02d%s"' % (number, b"x" * size))
        kept = await board.history("k")
        assert sum(len(entry.value) for entry in kept) <= HISTORY_BYTES_MAX
        assert len(kept) == HISTORY_BYTES_MAX // (size + 4)
        assert kept[0].value[:3] == b'"24'
        await board.delete("k")
        assert [entry.value for entry in await board.history("k", limit=1)] == [b"null"]

    async def test_history_must_be_asked_for_at_least_one(self, board: Board) -> None:
        with pytest.raises(InvalidInput):
            await board.history("k", limit=0)

    # ------------------------------------------------------------------------------------------------------------ keys

    async def test_keys_are_sorted_and_only_those_with_a_value(self, board: Board) -> None:
        for key in ("b", "a/1", "a", "a.1", "B", "gone", "n"):
            await board.put(key, b"1")
        await board.delete("gone")
        await board.append("list", b"1", items_max=1)
        await board.add("never", 1, value_max=0)
        assert await board.keys() == sorted(["b", "a/1", "a", "a.1", "B", "n", "list"])

    @pytest.mark.parametrize(
        ("pattern", "expected"),
        [
            ("*", ["a", "a.b", "a/b", "a/b/c", "ab", "b/a", "x-y"]),
            ("a", ["a"]),
            ("a*", ["a", "a.b", "a/b", "a/b/c", "ab"]),
            ("a/*", ["a/b", "a/b/c"]),
            ("a?b", ["a.b", "a/b"]),
            ("a.b", ["a.b"]),
            ("?", ["a"]),
            ("*b", ["a.b", "a/b", "ab"]),
            ("*/*", ["a/b", "a/b/c", "b/a"]),
            ("**a", ["a", "b/a"]),
            ("x-?", ["x-y"]),
            ("nothing*", []),
        ],
    )
    async def test_a_glob_knows_two_wildcards_and_no_more(
        self, board: Board, pattern: str, expected: list[str]
    ) -> None:
        for key in ("a", "ab", "a/b", "a.b", "a/b/c", "b/a", "x-y"):
            await board.put(key, b"1")
        assert await board.keys(pattern) == expected

    @pytest.mark.parametrize("pattern", ["[ab]", "", "a b", "{a}", "\\*", "x" * 257])
    async def test_a_pattern_that_can_match_nothing_is_refused(self, board: Board, pattern: str) -> None:
        with pytest.raises(InvalidInput) as refused:
            await board.keys(pattern)
        assert refused.value.code == "bad_pattern"
        with pytest.raises(InvalidInput):
            await board.watch(pattern)

    async def test_more_keys_than_one_page_come_complete_and_in_order(self, board: Board) -> None:
        names = [f"k/{number:04d}" for number in range(1_100)]
        async with asyncio.timeout(PATIENCE_S * 2):
            for begin in range(0, len(names), 100):
                await asyncio.gather(*(board.put(name, b"1") for name in names[begin : begin + 100]))
        assert await board.keys() == names
        assert await board.keys("k/*5") == names[5::10]

    # ----------------------------------------------------------------------------------------------------------- watch

    async def test_a_watch_that_was_returned_misses_nothing(self, board: Board, open_board: OpenBoard) -> None:
        other = await open_board()
        await board.put("a", b'"before"')
        async with aclosing(await board.watch()) as here, aclosing(await other.watch()) as there:
            written = [
                await board.put("a", b"1", by="w"),
                await other.put("b", b"2"),
                await board.append("list", b"3", items_max=2),
                await other.put("a", b"4"),
            ]
            await other.add("n", 5)
            await board.delete("a")
            assert (await take(here, 4)) == written
            assert (await take(there, 4)) == written
            for changes in (here, there):
                counted, deleted = await take(changes, 2)
                assert (counted.key, counted.value) == ("n", b"5")
                assert (deleted.key, deleted.value) == ("a", b"null")

    async def test_a_watch_wakes_up_for_what_happens_while_it_waits(self, board: Board, open_board: OpenBoard) -> None:
        other = await open_board()
        async with aclosing(await board.watch("k")) as changes:
            late_s = []
            for number in range(20):
                waiting = asyncio.ensure_future(anext(changes))
                await asyncio.sleep(0)
                entry = await other.put("k", b"%d" % number)
                written_s = asyncio.get_running_loop().time()
                async with asyncio.timeout(PATIENCE_S):
                    assert await waiting == entry
                late_s.append(asyncio.get_running_loop().time() - written_s)
            assert median(late_s) < 0.05  # woken, not found by looking now and then

    async def test_a_watch_reports_only_keys_that_match(self, board: Board) -> None:
        async with aclosing(await board.watch("risk/*")) as changes:
            for key in ("risk", "a/risk/1", "risk/1", "x", "risk/a/b"):
                await board.put(key, b"1")
            assert [entry.key for entry in await take(changes, 2)] == ["risk/1", "risk/a/b"]

    async def test_a_watch_keeps_the_order_of_each_key(self, board: Board, open_board: OpenBoard) -> None:
        boards = [board, await open_board()]
        async with aclosing(await board.watch("k*")) as changes:
            writes = [boards[n % 2].append(f"k{n % 3}", b"%d" % n, items_max=100) for n in range(90)]
            _, seen = await asyncio.gather(asyncio.gather(*writes), take(changes, 90))
        for key in ("k0", "k1", "k2"):
            assert [e for e in seen if e.key == key] == list(reversed(await board.history(key)))

    async def test_a_refused_or_repeated_write_is_no_change(self, board: Board) -> None:
        await board.put("k", b"1", op_id="a")
        async with aclosing(await board.watch()) as changes:
            await board.put("k", b"1", op_id="a")
            with pytest.raises(Conflict):
                await board.put("k", b"2", expect=ABSENT)
            await board.add("n", 1, value_max=0)
            await board.delete("nothing")
            last = await board.put("end", b"1")
            assert await take(changes, 1) == [last]

    async def test_a_watch_can_be_left_at_any_time(self, board: Board) -> None:
        for _ in range(3):
            changes = await board.watch()
            waiting = asyncio.ensure_future(anext(changes))
            await asyncio.sleep(0)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            await changes.aclose()
        never_begun = await board.watch()
        await never_begun.aclose()
        await board.put("k", b"1")
