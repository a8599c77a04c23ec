"""What every Board must do. A test class for one store inherits `BoardContract` and gives two fixtures.

`open_board`
    Opens one more board on the same, at first empty store; closes all of them after the test.
`wipe`
    Empties the store behind the boards' backs, or puts an empty one in its place, and answers a board on it.
"""

import asyncio
import json
import re
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from statistics import median
from typing import Any

import pytest

from mesh.core.board import HISTORY_BYTES_MAX, HISTORY_MAX, VALUE_BYTES_MAX
from mesh.core.errors import Conflict, InvalidInput
from mesh.wire.ports import ABSENT, Board, Count, Entry

OpenBoard = Callable[[], Awaitable[Board]]
Wipe = Callable[[], Awaitable[Board]]

MARGIN_MS = 250.0
PATIENCE_S = 20.0
"""How long a test waits for what must happen; no test waits for time to pass."""

LUA = """'"]] redis.call("FLUSHALL") --[[ ' ) KEYS[1] ARGV[1] \\0 ; DROP TABLE board_past; -- ${x} %s {0}"""


def values(entries: list[Entry] | Any) -> list[Any]:
    return [json.loads(entry.value) for entry in entries]


async def take(changes: AsyncGenerator[Entry, None], count: int) -> list[Entry]:
    async with asyncio.timeout(PATIENCE_S):
        return [await anext(changes) for _ in range(count)]


@asynccontextmanager
async def within(deadline_ms: float) -> AsyncIterator[None]:
    """Fails when the block ends later than a timer of `deadline_ms` on the same loop does, give or take a margin:
    so a busy machine, which delays both, is no failure."""
    loop = asyncio.get_running_loop()
    fired: list[float] = []
    timer = loop.call_later(deadline_ms / 1000, lambda: fired.append(loop.time()))
    try:
        yield
        assert not fired or (loop.time() - fired[0]) * 1000 < MARGIN_MS
    finally:
        timer.cancel()


class BoardContract:
    @pytest.fixture
    async def board(self, open_board: OpenBoard) -> Board:
        return await open_board()

    # ------------------------------------------------------------------------------------------ get, put, versions

    async def test_a_key_never_written_has_no_value(self, board: Board) -> None:
        assert await board.get("nothing") is None
        assert await board.history("nothing") == []

    async def test_what_was_put_is_got_with_its_writer_and_version(self, board: Board, open_board: OpenBoard) -> None:
        put = await board.put("risk/17", b'{"score": 1.50}', by="fraud/t1")
        assert put.key == "risk/17"
        assert put.value == b'{"score": 1.50}'
        assert put.by == "fraud/t1"
        assert put.at_ms > 1_700_000_000_000
        assert await board.get("risk/17") == put
        assert await (await open_board()).get("risk/17") == put

    async def test_a_version_is_the_incarnation_and_a_rising_counter(self, board: Board) -> None:
        incarnation = await board.incarnation()
        counters = []
        for number in range(5):
            entry = await board.put(f"k{number % 2}", b"%d" % number)
            found = re.fullmatch(r"([A-Za-z0-9]+):([0-9]+)", entry.version)
            assert found is not None
            assert found[1] == incarnation
            counters.append(int(found[2]))
        assert counters == sorted(set(counters))

    async def test_every_board_on_a_store_sees_one_incarnation(self, board: Board, open_board: OpenBoard) -> None:
        others = await asyncio.gather(*(open_board() for _ in range(4)))
        assert {await other.incarnation() for other in others} == {await board.incarnation()}

    async def test_json_null_is_a_value(self, board: Board) -> None:
        await board.put("k", b"null")
        found = await board.get("k")
        assert found is not None
        assert found.value == b"null"
        assert await board.keys() == ["k"]

    async def test_compare_and_set_writes_when_the_version_stands(self, board: Board) -> None:
        first = await board.put("k", b"1", expect=ABSENT)
        second = await board.put("k", b"2", expect=first.version)
        assert second.version != first.version
        assert await board.get("k") == second

    async def test_compare_and_set_on_a_stale_version_conflicts_and_changes_nothing(self, board: Board) -> None:
        first = await board.put("k", b"1")
        second = await board.put("k", b"2")
        with pytest.raises(Conflict) as conflict:
            await board.put("k", b"3", expect=first.version)
        assert conflict.value.current == second.version
        assert conflict.value.key == "k"
        assert await board.get("k") == second
        assert len(await board.history("k")) == 2

    async def test_absent_is_expected_only_where_nothing_stands(self, board: Board) -> None:
        first = await board.put("k", b"1", expect=ABSENT)
        with pytest.raises(Conflict) as conflict:
            await board.put("k", b"2", expect=ABSENT)
        assert conflict.value.current == first.version
        await board.delete("k")
        assert (await board.put("k", b"3", expect=ABSENT)).value == b"3"

    async def test_a_version_of_a_missing_key_conflicts(self, board: Board) -> None:
        elsewhere = await board.put("other", b"1")
        with pytest.raises(Conflict) as conflict:
            await board.put("k", b"1", expect=elsewhere.version)
        assert conflict.value.current == ABSENT

    async def test_a_version_from_before_a_deletion_never_passes_again(self, board: Board) -> None:
        first = await board.put("k", b"1")
        await board.delete("k")
        for _ in range(3):
            await board.put("k", b"2")
            with pytest.raises(Conflict):
                await board.put("k", b"3", expect=first.version)
            await board.delete("k")

    async def test_64_writers_on_one_key_lose_no_increment(self, board: Board, open_board: OpenBoard) -> None:
        boards = [board, await open_board()]
        conflicts = 0

        async def increment(mine: Board, times: int) -> None:
            nonlocal conflicts
            while times:
                found = await mine.get("n")
                number, expect = (0, ABSENT) if found is None else (json.loads(found.value), found.version)
                try:
                    await mine.put("n", b"%d" % (number + 1), expect=expect)
                    times -= 1
                except Conflict:
                    conflicts += 1

        async with asyncio.timeout(PATIENCE_S * 3):
            await asyncio.gather(*(increment(boards[writer % 2], 2) for writer in range(64)))
        final = await board.get("n")
        assert final is not None
        assert final.value == b"128"
        assert conflicts > 0
        assert sorted(values(await board.history("n", limit=1_000))) == list(range(1, 129))

    # ----------------------------------------------------------------------------------------------------- delete

    async def test_a_deletion_removes_the_value_and_ends_its_history(self, board: Board) -> None:
        first = await board.put("k", b'"v"', by="a")
        assert await board.delete("k", by="b") is True
        assert await board.get("k") is None
        assert await board.keys() == []
        end, before = await board.history("k")
        assert end.value == b"null"
        assert end.by == "b"
        assert end.version != first.version
        assert before == first

    async def test_deleting_nothing_is_false_and_leaves_no_trace(self, board: Board) -> None:
        assert await board.delete("k") is False
        await board.put("k", b"1")
        assert await board.delete("k") is True
        assert await board.delete("k") is False
        assert await board.delete("k", expect=ABSENT) is False
        assert len(await board.history("k")) == 2

    async def test_a_deletion_may_expect_a_version(self, board: Board) -> None:
        first = await board.put("k", b"1")
        second = await board.put("k", b"2")
        for expect in (first.version, ABSENT):
            with pytest.raises(Conflict) as conflict:
                await board.delete("k", expect=expect)
            assert conflict.value.current == second.version
        assert await board.delete("k", expect=second.version) is True
        with pytest.raises(Conflict):
            await board.delete("k", expect=second.version)

    # ----------------------------------------------------------------------------------------------------- append

    async def test_appending_begins_an_array_and_drops_the_oldest(self, board: Board) -> None:
        for number in range(5):
            entry = await board.append("list", b'{"n": %d}' % number, items_max=3, by="a")
        assert json.loads(entry.value) == [{"n": 2}, {"n": 3}, {"n": 4}]
        assert await board.get("list") == entry
        shorter = await board.append("list", b"5", items_max=2)
        assert json.loads(shorter.value) == [{"n": 4}, 5]
        assert values(await board.history("list"))[-1] == [{"n": 0}]

    @pytest.mark.parametrize(
        "array",
        [
            b"[]",
            b" [\n] ",
            b"[1]",
            b' [ 1 , [2, {"a": [3, "]"]}] ,\t"x,\\"],[\\\\" , {"k,": "}"}\n] ',
            b'["\\\\", "\\\\\\"", ",", ""]',
            b"[[[[]]],{},12345678901234567890,1.50]",
            b"[" + b" " * 40_000 + b"1]",
        ],
    )
    @pytest.mark.parametrize("items_max", [1, 2, 4, 100])
    async def test_appending_to_an_array_somebody_put_reads_it_as_json(
        self, board: Board, array: bytes, items_max: int
    ) -> None:
        await board.put("list", array)
        first = await board.append("list", b' "new" ', items_max=items_max)
        expected = [*json.loads(array), "new"][-items_max:]
        assert json.loads(first.value) == expected
        second = await board.append("list", b"[2]", items_max=items_max)
        assert json.loads(second.value) == [*expected, [2]][-items_max:]

    async def test_a_value_much_padded_is_appended_to_as_fast_as_any(self, board: Board) -> None:
        await board.put("list", b"[" + b"[] , " * 10_000 + b"2]")
        async with asyncio.timeout(2):
            await board.append("list", b"3", items_max=2)
        await board.put("list", b"[1" + b" " * 60_000 + b",2]")
        async with asyncio.timeout(2):
            assert json.loads((await board.append("list", b"3", items_max=5)).value) == [1, 2, 3]

    async def test_appends_of_16_writers_commute(self, board: Board, open_board: OpenBoard) -> None:
        boards = [board, await open_board()]

        async def write(writer: int) -> None:
            for number in range(5):
                await boards[writer % 2].append("list", b"[%d,%d]" % (writer, number), items_max=1_000)

        async with asyncio.timeout(PATIENCE_S):
            await asyncio.gather(*(write(writer) for writer in range(16)))
        final = await board.get("list")
        assert final is not None
        items = json.loads(final.value)
        assert len(items) == 80
        for writer in range(16):
            assert [n for w, n in items if w == writer] == list(range(5))

    async def test_appending_to_no_array_is_refused(self, board: Board) -> None:
        await board.put("k", b'{"a": []}')
        with pytest.raises(InvalidInput) as refused:
            await board.append("k", b"1", items_max=5)
        assert refused.value.code == "not_an_array"
        await board.delete("k")
        assert (await board.append("k", b"1", items_max=5)).value == b"[1]"

    async def test_an_array_over_the_limit_is_refused_and_stays(self, board: Board) -> None:
        half = b'"' + b"x" * (VALUE_BYTES_MAX // 2) + b'"'
        first = await board.append("k", half, items_max=10)
        with pytest.raises(InvalidInput) as refused:
            await board.append("k", half, items_max=10)
        assert refused.value.code == "too_large"
        assert str(VALUE_BYTES_MAX) in str(refused.value)
        assert await board.get("k") == first
        assert json.loads((await board.append("k", half, items_max=1)).value) == [json.loads(half)]

    # -------------------------------------------------------------------------------------------------------- add

    async def test_a_counter_begins_at_zero_and_is_a_value_like_any(self, board: Board) -> None:
        assert await board.add("n", 5) == Count(5, True)
        assert await board.add("n", -7) == Count(-2, True)
        found = await board.get("n")
        assert found is not None
        assert found.value == b"-2"
        await board.put("n", b" 40 ", expect=found.version)
        assert await board.add("n", 2) == Count(42, True)
        assert values(await board.history("n")) == [42, 40, -2, 5]

    async def test_an_amount_that_would_leave_the_limits_is_not_taken(self, board: Board) -> None:
        assert await board.add("n", 8, value_max=10) == Count(8, True)
        assert await board.add("n", 3, value_max=10) == Count(8, False)
        assert await board.add("n", 2, value_max=10) == Count(10, True)
        assert await board.add("n", -11, value_min=0) == Count(10, False)
        assert await board.add("n", -10, value_min=0, value_max=10) == Count(0, True)
        assert await board.add("empty", 1, value_max=0) == Count(0, False)
        assert await board.get("empty") is None
        assert len(await board.history("n")) == 3

    async def test_a_counter_never_leaves_what_every_reader_holds_exactly(self, board: Board) -> None:
        most = 2**53 - 1
        assert await board.add("n", most) == Count(most, True)
        assert await board.add("n", 1) == Count(most, False)
        assert await board.add("n", -1) == Count(most - 1, True)
        assert await board.add("n", -most) == Count(-1, True)
        assert await board.add("n", -most) == Count(-1, False)
        with pytest.raises(InvalidInput) as refused:
            await board.add("n", most + 1)
        assert refused.value.code == "bad_number"

    async def test_only_integers_are_counted(self, board: Board) -> None:
        for value in (b"1.5", b'"1"', b"[]", b"null", b"9007199254740992"):
            await board.put("k", value)
            with pytest.raises(InvalidInput) as refused:
                await board.add("k", 1)
            assert refused.value.code == "not_a_counter"

    async def test_16_writers_at_once_never_pass_the_limit(self, board: Board, open_board: OpenBoard) -> None:
        boards = [board, await open_board()]
        async with asyncio.timeout(PATIENCE_S):
            counts = await asyncio.gather(*(boards[n % 2].add("n", 3, value_max=100) for n in range(48)))
        assert sum(count.applied for count in counts) == 33
        assert await board.add("n", 0) == Count(99, True)
        assert max(values(await board.history("n"))) == 99

    # ------------------------------------------------------------------------------------------------ op_id, again

    async def test_a_repeated_put_answers_as_the_first_time(self, board: Board, open_board: OpenBoard) -> None:
        other = await open_board()
        start = await board.put("k", b"0")
        first = await board.put("k", b"1", expect=start.version, by="a", op_id="task:1")
        assert await other.put("k", b"1", expect=start.version, by="a", op_id="task:1") == first
        later = await board.put("k", b"2")
        assert await board.put("k", b"1", expect=start.version, by="a", op_id="task:1") == first
        assert await board.get("k") == later
        assert values(await board.history("k")) == [2, 1, 0]

    async def test_a_repeated_append_adds_one_item(self, board: Board) -> None:
        first = await board.append("k", b"1", items_max=5, op_id="a")
        await board.append("k", b"2", items_max=5, op_id="b")
        assert await board.append("k", b"1", items_max=5, op_id="a") == first
        found = await board.get("k")
        assert found is not None
        assert json.loads(found.value) == [1, 2]

    async def test_a_repeated_add_counts_once_and_a_refusal_stays_one(self, board: Board) -> None:
        assert await board.add("n", 7, value_max=10, op_id="a") == Count(7, True)
        assert await board.add("n", 7, value_max=10, op_id="b") == Count(7, False)
        await board.add("n", -7)
        assert await board.add("n", 7, value_max=10, op_id="a") == Count(7, True)
        assert await board.add("n", 7, value_max=10, op_id="b") == Count(7, False)
        assert await board.add("n", 0) == Count(0, True)

    async def test_a_repeated_deletion_answers_as_the_first_time(self, board: Board) -> None:
        first = await board.put("k", b"1")
        assert await board.delete("k", expect=first.version, op_id="a") is True
        assert await board.delete("k", op_id="b") is False
        again = await board.put("k", b"2")
        assert await board.delete("k", expect=first.version, op_id="a") is True
        assert await board.delete("k", op_id="b") is False
        assert await board.get("k") == again

    async def test_an_op_id_belongs_to_its_key(self, board: Board) -> None:
        await board.put("a", b"1", op_id="op")
        await board.put("b", b"2", op_id="op")
        found = await board.get("b")
        assert found is not None
        assert found.value == b"2"

    async def test_after_a_conflict_the_same_op_id_may_try_another_version(self, board: Board) -> None:
        first = await board.put("k", b"1")
        with pytest.raises(Conflict):
            await board.put("k", b"2", expect=ABSENT, op_id="op")
        second = await board.put("k", b"2", expect=first.version, op_id="op")
        assert await board.put("k", b"2", expect=first.version, op_id="op") == second

    async def test_another_kind_of_write_under_the_same_op_id_is_refused(self, board: Board) -> None:
        await board.put("k", b"[]", op_id="op")
        writes: list[Callable[[], Awaitable[object]]] = [
            lambda: board.append("k", b"1", items_max=5, op_id="op"),
            lambda: board.add("k", 1, op_id="op"),
            lambda: board.delete("k", op_id="op"),
        ]
        for write in writes:
            with pytest.raises(InvalidInput) as refused:
                await write()
            assert refused.value.code == "op_id_reused"
            assert "put" in str(refused.value)

    async def test_a_repetition_is_recognised_when_history_has_forgotten_the_write(self, board: Board) -> None:
        first = await board.put("k", b'"first"', by="a", op_id="op")
        await self._put_many(board, "k", HISTORY_MAX)
        again = await board.put("k", b'"first"', by="a", op_id="op")
        assert again.version == first.version
        assert (again.at_ms, again.by) == (first.at_ms, first.by)
        assert len(await board.history("k", limit=HISTORY_MAX)) == HISTORY_MAX
        assert again.value == (await board.history("k", limit=1))[0].value

    # ---------------------------------------------------------------------------------------------------- history

    async def test_history_begins_with_the_newest(self, board: Board) -> None:
        entries = [await board.put("k", b"%d" % number, by=f"w{number}") for number in range(5)]
        assert await board.history("k") == entries[::-1]
        assert await board.history("k", limit=2) == entries[:2:-1]

    async def test_history_keeps_the_last_thousand(self, board: Board) -> None:
        await self._put_many(board, "k", HISTORY_MAX + 12)
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

    async def _put_many(self, board: Board, key: str, count: int) -> None:
        async with asyncio.timeout(PATIENCE_S * 2):
            for number in range(count):
                await board.put(key, b"%d" % number)

    # ------------------------------------------------------------------------------------------------------- keys

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

    # ------------------------------------------------------------------------------------------------------ watch

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

    async def test_a_watch_tells_only_of_keys_that_match(self, board: Board) -> None:
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

    # -------------------------------------------------------------------------------------------------- bad input

    @pytest.mark.parametrize("key", ["", "a b", "x" * 257, "ä", "a\n", "a\x00b", "{mesh}", "a*", "\ud800"])
    async def test_a_bad_key_is_refused_by_every_operation(self, board: Board, key: str) -> None:
        calls: list[Callable[[], Awaitable[object]]] = [
            lambda: board.get(key),
            lambda: board.put(key, b"1"),
            lambda: board.delete(key),
            lambda: board.append(key, b"1", items_max=1),
            lambda: board.add(key, 1),
            lambda: board.history(key),
        ]
        for call in calls:
            with pytest.raises(InvalidInput) as refused:
                await call()
            assert refused.value.code == "bad_key"
        assert await board.keys() == []

    @pytest.mark.parametrize("key", ["../../etc/passwd", "/", "..", "a//b", "mesh:board:life", "life", "x" * 256])
    async def test_a_key_that_looks_like_a_path_is_a_name_like_any(self, board: Board, key: str) -> None:
        entry = await board.put(key, b"1")
        assert await board.get(key) == entry
        assert await board.keys() == [key]
        assert await board.get("other") is None

    @pytest.mark.parametrize(
        ("value", "code"),
        [
            (b"{", "unparseable"),
            (b"NaN", "bad_number"),
            (b"[1e999]", "bad_number"),
            (b"\xff\xfe", "unparseable"),
            (b"[" * 5_000 + b"]" * 5_000, "too_deep"),
            (b'"' + b"x" * VALUE_BYTES_MAX + b'"', "too_large"),
            (b'"' + b"x" * 1_048_576 + b'"', "too_large"),
        ],
    )
    async def test_a_bad_value_is_refused_and_nothing_changes(self, board: Board, value: bytes, code: str) -> None:
        for write in (board.put("k", value), board.append("k", value, items_max=5)):
            with pytest.raises(InvalidInput) as refused:
                await write
            assert refused.value.code == code
        assert await board.get("k") is None

    async def test_a_value_of_64_kib_is_taken(self, board: Board) -> None:
        value = b'"' + b"x" * (VALUE_BYTES_MAX - 2) + b'"'
        await board.put("k", value)
        found = await board.get("k")
        assert found is not None
        assert found.value == value

    async def test_text_that_looks_like_a_program_is_inert(self, board: Board) -> None:
        kept = await board.put("kept", b"1")
        value = json.dumps({LUA: LUA}).encode()
        put = await board.put("k", value, by=LUA.replace("\0", ""))
        assert put.value == value
        assert await board.get("k") == put
        array = await board.append("list", value, items_max=2)
        assert json.loads(array.value) == [{LUA: LUA}]
        assert await board.get("kept") == kept

    async def test_a_version_that_is_none_is_refused(self, board: Board) -> None:
        await board.put("k", b"1")
        for expect in ("1", "null", "' OR 1=1 --", "a:b"):
            with pytest.raises(InvalidInput) as refused:
                await board.put("k", b"2", expect=expect)
            assert refused.value.code == "bad_version"
            with pytest.raises(InvalidInput):
                await board.delete("k", expect=expect)

    async def test_a_version_of_another_incarnation_conflicts(self, board: Board) -> None:
        entry = await board.put("k", b"1")
        counter = entry.version.partition(":")[2]
        with pytest.raises(Conflict) as conflict:
            await board.put("k", b"2", expect=f"ffffffffffff:{counter}")
        assert conflict.value.current == entry.version

    # ------------------------------------------------------------------------------------------------ incarnation

    async def test_a_wiped_store_is_another_life_and_no_old_version_passes(self, board: Board, wipe: Wipe) -> None:
        before = [await board.put("k", b"%d" % number) for number in range(3)]
        incarnation = await board.incarnation()
        after = await wipe()
        assert await after.incarnation() != incarnation
        assert await after.get("k") is None
        for number in range(5):
            await after.put("k", b"%d" % number)
            for old in before:
                with pytest.raises(Conflict):
                    await after.put("k", b"9", expect=old.version)
                with pytest.raises(Conflict):
                    await after.delete("k", expect=old.version)

    async def test_a_wiped_store_has_forgotten_the_op_ids_with_the_writes(self, board: Board, wipe: Wipe) -> None:
        await board.append("k", b"1", items_max=5, op_id="op")
        after = await wipe()
        assert (await after.append("k", b"2", items_max=5, op_id="op")).value == b"[2]"
