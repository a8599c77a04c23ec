"""The contract of every Board. A test class for one store inherits `BoardContract` and gives two fixtures.

`open_board`
    Opens one more board on the same, at first empty store; closes all of them after the test.
`wipe`
    Empties the store behind the boards' backs, or puts an empty one in its place, and answers a board on it.
"""

import asyncio
import json
import re
from collections.abc import Awaitable, Callable

import pytest

from mesh.adapters.ports import ABSENT, Board
from mesh.core.board.rules import VALUE_BYTES_MAX
from mesh.core.errors import Conflict, InvalidInput
from tests.adapters.board_follow_contract import BoardFollowContract
from tests.adapters.board_kit import PATIENCE_S, OpenBoard, Wipe, completed, values
from tests.adapters.board_lease_contract import BoardLeaseContract
from tests.adapters.board_ops_contract import BoardOpsContract

LUA = """'"]] redis.call("FLUSHALL") --[[ ' ) KEYS[1] ARGV[1] \\0 ; DROP TABLE board_past; -- ${x} %s {0}"""


class BoardContract(BoardOpsContract, BoardFollowContract, BoardLeaseContract):
    # ---------------------------------------------------------------------------------------------- get, put, versions

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

    # ---------------------------------------------------------------------------------------------------------- delete

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

    # ------------------------------------------------------------------------------------------------------- bad input

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

    async def test_a_version_that_is_invalid_is_refused(self, board: Board) -> None:
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

    # ----------------------------------------------------------------------------------------------------- incarnation

    async def test_a_wiped_store_is_another_incarnation_and_no_old_version_passes(
        self, board: Board, wipe: Wipe
    ) -> None:
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
        after = await completed(await wipe())
        assert (await after.append("k", b"2", items_max=5, op_id="op")).value == b"[2]"
