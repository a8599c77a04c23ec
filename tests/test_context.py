"""The blackboard and the facts of a task as an agent's function sees them, on the embedded board."""

import asyncio
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, Field, SecretStr

from mesh.adapters.ports import Board, Count, Entry
from mesh.adapters.sqlite.board import SqliteBoard
from mesh.adapters.sqlite.storage.file import SqliteFile
from mesh.context import AgentBoard, Context
from mesh.core.board.changelog import BoardChange
from mesh.core.errors import BoardIncomplete, Conflict, InvalidInput


class Stock(BaseModel):
    sku: str
    left: int


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteBoard]:
    board = SqliteBoard(SqliteFile(tmp_path / "mesh.db"), timeout_ms=10_000)
    await board.start()
    yield board
    await board.close()


@pytest.fixture
def board(store: SqliteBoard) -> AgentBoard:
    return AgentBoard(store, by="pricing/t1", op_prefix="t1")


def context(board: Board, *, attempt: int = 1) -> Context:
    return Context(
        agent="pricing",
        run_id="r1",
        task_id="t1",
        attempt=attempt,
        depth=2,
        path=("intake", "pricing"),
        deadline_ms=None,
        board=board,
    )


async def test_a_value_comes_back_parsed_with_its_version_and_writer(board: AgentBoard) -> None:
    written = await board.put("stock/7", Stock(sku="7", left=3))
    found = await board.get("stock/7")
    assert found == written
    assert found.value == {"sku": "7", "left": 3}
    assert found.by == "pricing/t1"
    assert found.version
    assert found.at_ms > 0


async def test_a_key_without_a_value_is_none(board: AgentBoard) -> None:
    assert await board.get("nothing") is None


async def test_a_write_that_expects_another_version_is_a_conflict(board: AgentBoard) -> None:
    first = await board.put("k", 1, expect="")
    await board.put("k", 2, expect=first.version)
    with pytest.raises(Conflict) as caught:
        await board.put("k", 3, expect=first.version)
    assert caught.value.key == "k"
    assert (await board.get("k")).value == 2  # type: ignore[union-attr]


async def test_updates_of_one_process_take_turns_and_none_is_lost(tmp_path: Path) -> None:
    puts = 0

    class Counting(SqliteBoard):
        async def put(self, key: str, value: bytes, **options: Any) -> Any:
            nonlocal puts
            puts += 1
            return await super().put(key, value, **options)

    async def one(n: int) -> None:
        mine = AgentBoard(counting, by=f"a/{n}", op_prefix=f"t{n}")
        await mine.update("count", lambda value: {"n": value["n"] + 1}, default={"n": 0})

    counting = Counting(SqliteFile(tmp_path / "mesh.db"), timeout_ms=10_000)
    await counting.start()
    try:
        await asyncio.gather(*(one(n) for n in range(150)))
        found = await counting.get("count")
    finally:
        await counting.close()
    assert found is not None
    assert found.value == b'{"n":150}'
    assert puts == 150, "an update met another one of the same process"


async def test_no_update_is_lost_between_two_clients_of_the_store(store: SqliteBoard, tmp_path: Path) -> None:
    other = SqliteBoard(SqliteFile(tmp_path / "mesh.db"), timeout_ms=10_000)
    await other.start()
    try:
        boards = [AgentBoard(b, by="a", op_prefix=f"t{n}") for n, b in enumerate((store, other))]
        await asyncio.gather(*(b.update("count", lambda v: v + 1, default=0) for b in boards for _ in range(30)))
        assert (await boards[0].get("count")).value == 60  # type: ignore[union-attr]
    finally:
        await other.close()


async def test_an_update_that_never_wins_ends_in_a_conflict(store: SqliteBoard, board: AgentBoard) -> None:
    """Its change function is overtaken every time: each call schedules a write that lands before the update's own."""
    rival = AgentBoard(store, by="rival", op_prefix="r")
    calls = 0

    class Overtaken(SqliteBoard):
        async def put(self, key: str, value: bytes, **options: Any) -> Any:
            nonlocal calls
            calls += 1
            await rival.put(key, calls)
            return await super().put(key, value, **options)

    overtaken = Overtaken(SqliteFile(Path(store.url.removeprefix("sqlite:"))), timeout_ms=10_000)
    await overtaken.start()
    try:
        with pytest.raises(Conflict):
            await AgentBoard(overtaken, by="a", op_prefix="t").update("k", lambda value: value, default=0)
        assert calls == 64
    finally:
        await overtaken.close()


async def test_a_default_is_not_changed_by_the_change_function(board: AgentBoard) -> None:
    default: dict[str, list[int]] = {"seen": []}
    await board.update("k", lambda value: {"seen": [*value["seen"], value["seen"].append(1) or 2]}, default=default)
    assert default == {"seen": []}


async def test_an_append_of_a_repeated_task_is_applied_once(store: SqliteBoard) -> None:
    for attempt in (1, 2):
        mine = context(store, attempt=attempt).board
        await mine.append("log", {"attempt": attempt})
        await mine.append("log", "second")
    found = await store.get("log")
    assert found is not None
    assert found.value == b'[{"attempt":1},"second"]'


async def test_an_addition_of_a_repeated_task_is_applied_once(store: SqliteBoard) -> None:
    for attempt in (1, 2):
        mine = context(store, attempt=attempt).board
        assert (await mine.add("orders", 2)).value == 2
        assert (await mine.add("orders")).value == 3


async def test_repeating_in_another_order_of_keys_applies_nothing_twice(store: SqliteBoard) -> None:
    """Two appends side by side may come to the board in either order."""
    for keys in (("a", "b"), ("b", "a")):
        mine = context(store).board
        for key in keys:
            await mine.append(key, key)
    for key in ("a", "b"):
        found = await store.get(key)
        assert found is not None
        assert found.value == f'["{key}"]'.encode()


async def test_a_counter_stays_within_its_limits(board: AgentBoard) -> None:
    assert await board.add("left", 3, value_max=3) == Count(3, True)
    assert await board.add("left", 1, value_max=3) == Count(3, False)
    assert await board.add("left", -4, value_min=0) == Count(3, False)


async def test_history_and_keys_are_parsed_and_sorted(board: AgentBoard) -> None:
    for n in range(3):
        await board.put("b/k", n)
    await board.put("a/k", "x")
    assert [item.value for item in await board.history("b/k", limit=2)] == [2, 1]
    assert await board.keys("*/k") == ["a/k", "b/k"]
    assert await board.keys("b*") == ["b/k"]


async def test_an_append_keeps_the_newest(board: AgentBoard) -> None:
    for n in range(4):
        item = await board.append("recent", n, items_max=3)
    assert item.value == [1, 2, 3]


@pytest.mark.parametrize("value", [object(), {1: 2}, {"a": {1, 2}}, "\ud800", 10**30])
async def test_a_value_that_is_not_json_is_refused(board: AgentBoard, value: Any) -> None:
    with pytest.raises(InvalidInput) as caught:
        await board.put("k", value)
    assert caught.value.code == ("bad_number" if isinstance(value, int) else "unparseable")


async def test_a_value_over_the_limit_and_a_bad_key_are_refused(board: AgentBoard) -> None:
    with pytest.raises(InvalidInput, match="65536") as caught:
        await board.put("k", "x" * 70_000)
    assert caught.value.code == "too_large"
    with pytest.raises(InvalidInput) as caught:
        await board.put("../ k", 1)
    assert caught.value.code == "bad_key"


async def test_the_context_says_whose_work_it_is(store: SqliteBoard) -> None:
    found = context(store, attempt=2)
    assert (found.agent, found.run_id, found.task_id, found.attempt) == ("pricing", "r1", "t1", 2)
    assert (found.depth, found.path, found.deadline_ms) == (2, ("intake", "pricing"), None)


async def test_spending_adds_up_exactly(store: SqliteBoard) -> None:
    found = context(store)
    found.spend(usd=0.1, tokens=5)
    found.spend(usd="0.2")
    found.spend(usd=Decimal("0.0000001"), tokens=1)
    found.spend(tokens=3)
    found.spend()
    assert found.usd == Decimal("0.3000001")
    assert found.tokens == 9


@pytest.mark.parametrize(
    "spent",
    [
        {"usd": -1},
        {"usd": float("nan")},
        {"usd": float("inf")},
        {"usd": "much"},
        {"usd": Decimal("sNaN")},
        {"tokens": -1},
        {"tokens": 1.5},
        {"tokens": True},
        {"tokens": "5"},
    ],
)
async def test_what_is_no_amount_cannot_be_spent(store: SqliteBoard, spent: dict[str, Any]) -> None:
    found = context(store)
    found.spend(usd=1, tokens=1)
    with pytest.raises(InvalidInput) as caught:
        found.spend(**spent)
    assert caught.value.code == "bad_usage"
    assert (found.usd, found.tokens) == (Decimal(1), 1)


async def test_every_write_that_was_acknowledged_is_reported_with_its_version(store: SqliteBoard) -> None:
    told: list[BoardChange] = []
    mine = AgentBoard(store, by="pricing/t1", op_prefix="t1", changed=told.append)
    put = await mine.put("a", {"n": 1})
    updated = await mine.update("a", lambda value: {"n": value["n"] + 1})
    appended = await mine.append("b", 7)
    added = await mine.add("c", 5, value_max=9)
    await mine.add("c", 5, value_max=9)
    with pytest.raises(Conflict):
        await mine.put("a", 0, expect=put.version)
    assert told == [
        BoardChange("a", b'{"n":1}', put.version, "pricing/t1", "", put.at_ms),
        BoardChange("a", b'{"n":2}', updated.version, "pricing/t1", "", updated.at_ms),
        BoardChange("b", b"[7]", appended.version, "pricing/t1", "t1:1", appended.at_ms),
        BoardChange("c", b"5", added.version, "pricing/t1", "t1:1", added.at_ms),
    ]
    assert {(await store.history(key))[0].by for key in "abc"} == {"pricing/t1"}, "as the store has it too"


async def test_a_repeated_task_reports_its_writes_again_under_their_versions(store: SqliteBoard) -> None:
    lives: list[list[BoardChange]] = [[], []]
    for told in lives:
        mine = AgentBoard(store, by="pricing/t1", op_prefix="t1", changed=told.append)
        await mine.append("b", 7)
        await mine.add("c", 5)
        await store.add("c", 1)
    assert lives[0] == lives[1]


async def test_a_write_that_is_verified_reads_its_value_back(tmp_path: Path) -> None:
    class Overtaken(SqliteBoard):
        """Another writer comes between the write and the reading back."""

        async def get(self, key: str) -> Entry | None:
            await self.put(key, b'"other"', by="other")
            return await super().get(key)

    for kind, overtaken in ((SqliteBoard, False), (Overtaken, True)):
        store = kind(tmp_path / f"{overtaken}.db", timeout_ms=10_000)
        await store.start()
        try:
            board = AgentBoard(store, by="pricing/t1", op_prefix="t1")
            if overtaken:
                with pytest.raises(Conflict):
                    await board.put("k", 1, verify=True)
            else:
                assert (await board.put("k", 1, verify=True)).value == 1
        finally:
            await store.close()


async def test_writes_that_depend_on_lost_values_wait_until_the_board_is_complete(tmp_path: Path) -> None:
    store = SqliteBoard(tmp_path / "board.db", timeout_ms=10_000, mirrored=True)
    await store.start()
    try:
        board = AgentBoard(store, by="pricing/t1", op_prefix="t1")
        dependent = (board.add("n"), board.append("l", 1), board.update("u", lambda _: 1), board.put("p", 1, expect=""))
        writes = [asyncio.ensure_future(write) for write in dependent]
        await store.put("after", b"1")  # one turn of the store later all of them have been refused
        assert not any(write.done() for write in writes)
        await store.mark_complete(await store.incarnation())
        async with asyncio.timeout(10):
            await asyncio.gather(*writes)
    finally:
        await store.close()
    assert isinstance(writes[0].result(), Count)


async def test_a_board_that_stays_incomplete_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mesh.context.COMPLETE_WAIT_MS", 100)
    store = SqliteBoard(tmp_path / "board.db", timeout_ms=10_000, mirrored=True)
    await store.start()
    try:
        with pytest.raises(BoardIncomplete):
            await AgentBoard(store, by="pricing/t1", op_prefix="t1").add("n")
    finally:
        await store.close()


async def test_a_model_is_kept_by_its_aliases_and_a_secret_is_not_kept_as_asterisks(board: AgentBoard) -> None:
    class Login(BaseModel):
        user_name: str = Field(alias="userName")
        password: SecretStr | None = None

    item = await board.put("login", {"who": [Login(userName="ann")]})
    assert item.value == {"who": [{"userName": "ann", "password": None}]}
    with pytest.raises(InvalidInput, match="asterisks at 'password'"):
        await board.put("login", Login(userName="ann", password=SecretStr("hidden")))


async def test_the_random_numbers_of_a_task_repeat_and_those_of_another_task_differ(store: SqliteBoard) -> None:
    first, again = context(store), context(store, attempt=2)
    drawn = [first.random().random() for _ in range(3)]
    assert len(set(drawn)) == 3
    assert [again.random().random() for _ in range(3)] == drawn
    again.task_id, again._random = "t2", None
    assert again.random().random() != drawn[0]
