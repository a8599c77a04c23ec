import orjson

from agents.issues.digest import LINES_MAX, digest
from agents.issues.events import EventNoted, NeedsHuman
from mesh.adapters.sqlite.board import SqliteBoard
from tests.agents.conftest import ContextOf

NOTED = EventNoted(
    event="push", action="", repository="a/b", sender="ada", area="code", importance="warning", team="maintainers",
    summary="push in a/b by ada", day="2024-05-06",
)  # fmt: skip
HUMAN = NeedsHuman(
    item="a/b#1", repository="a/b", event="issues", action="opened", title="hm", url="", day="2024-05-06", kind="other",
    area="general", severity="low", team="maintainers", confidence=0.1, reasons=["confidence 0.1 is below 0.4"],
)  # fmt: skip


async def value(board: SqliteBoard, key: str) -> object:
    entry = await board.get(f"issues/digest/2024-05-06/{key}")
    return None if entry is None else orjson.loads(entry.value)


async def test_events_are_counted_by_kind_under_their_own_day(board: SqliteBoard, context: ContextOf) -> None:
    await digest(NOTED, context("a"))
    await digest(HUMAN, context("b"))
    await digest(HUMAN, context("c"))
    assert await value(board, "count/total") == 3
    assert await value(board, "count/event.noted") == 1
    assert await value(board, "count/needs.human") == 2


async def test_a_repeated_task_counts_once(board: SqliteBoard, context: ContextOf) -> None:
    for _ in range(3):
        await digest(NOTED, context("a"))
    assert await value(board, "count/total") == 1
    assert await value(board, "lines") == ["[warning] push in a/b by ada → maintainers"]


async def test_routine_is_counted_without_a_line(board: SqliteBoard, context: ContextOf) -> None:
    await digest(NOTED.model_copy(update={"importance": "info"}), context("a"))
    assert await value(board, "count/total") == 1
    assert await value(board, "lines") is None


async def test_a_day_of_the_longest_lines_fits_the_board(board: SqliteBoard, context: ContextOf) -> None:
    for n in range(LINES_MAX + 5):
        await digest(HUMAN.model_copy(update={"title": "\x00\n漢\u2028\x1f" * 100}), context(str(n)))
    lines = await value(board, "lines")
    assert isinstance(lines, list)
    assert len(lines) == LINES_MAX
