"""The contract of every Board for writes: arrays and counters that commute, and writes that are asked for twice."""

import asyncio
import json
from collections.abc import Awaitable, Callable

import pytest

from mesh.adapters.ports import ABSENT, Board, Count
from mesh.core.board.rules import HISTORY_MAX, VALUE_BYTES_MAX
from mesh.core.errors import Conflict, InvalidInput
from tests.adapters.board_kit import PATIENCE_S, BoardFixtures, OpenBoard, put_many, values


class BoardOpsContract(BoardFixtures):
    # ---------------------------------------------------------------------------------------------------------- append

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
    async def test_appending_to_an_array_put_before_reads_it_as_json(
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

    # ------------------------------------------------------------------------------------------------------------- add

    async def test_a_counter_begins_at_zero_and_is_a_value_like_any(self, board: Board) -> None:
        assert await board.add("n", 5) == Count(5, True)
        assert await board.add("n", -7) == Count(-2, True)
        found = await board.get("n")
        assert found is not None
        assert found.value == b"-2"
        await board.put("n", b" 40 ", expect=found.version)
        assert await board.add("n", 2) == Count(42, True)
        assert values(await board.history("n")) == [42, 40, -2, 5]

    async def test_every_write_stores_its_writer(self, board: Board) -> None:
        await board.put("n", b"1", by="ann")
        await board.add("n", 2, by="bob")
        await board.add("n", 3)
        await board.append("l", b"1", items_max=3, by="cid")
        await board.delete("l", by="dot")
        assert [entry.by for entry in await board.history("n")] == ["", "bob", "ann"]
        assert [entry.by for entry in await board.history("l")] == ["dot", "cid"]

    async def test_a_count_names_the_version_that_it_made_also_when_it_is_repeated(self, board: Board) -> None:
        first = await board.add("n", 5, value_max=9, op_id="a")
        found = await board.get("n")
        assert found is not None
        assert (first.version, first.at_ms) == (found.version, found.at_ms)
        assert (await board.add("n", 5, value_max=9, op_id="b")).version == ""
        assert (await board.add("n", 1)).version != first.version
        again = await board.add("n", 5, value_max=9, op_id="a")
        assert (again, again.version, again.at_ms) == (first, first.version, first.at_ms)

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

    # ---------------------------------------------------------------------------------------------------- op_id, again

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
        await put_many(board, "k", HISTORY_MAX)
        again = await board.put("k", b'"first"', by="a", op_id="op")
        assert again.version == first.version
        assert (again.at_ms, again.by) == (first.at_ms, first.by)
        assert len(await board.history("k", limit=HISTORY_MAX)) == HISTORY_MAX
        assert again.value == (await board.history("k", limit=1))[0].value
