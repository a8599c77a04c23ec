import itertools
from typing import Any

import pytest

from agents.issues.duplicates import BANDS, ENTRIES_MAX, duplicates, minhash, resemblance
from mesh.adapters.sqlite.board import SqliteBoard
from tests.agents.conftest import ContextOf
from tests.agents.issues.webhooks import triaged_issue

CRASH = "The kettle crashes as soon as the config file is empty and I call brew from the shell"
CRASH_TOO = "The kettle crashes as soon as the config file is empty and I call brew from a script"
OTHER = "Please add a dark theme to the web page because my eyes hurt at night when I read it"


async def issue(number: int, body: str, **fields: Any) -> Any:
    return await triaged_issue("", body, number=number, created_at=f"2024-05-{number:02d}T08:00:00Z", **fields)


async def lookalikes(board: SqliteBoard) -> dict[str, str]:
    """Everything that the board lists, key → JSON."""
    found = [await board.get(key) for key in await board.keys("issues/lookalikes/*")]
    return {entry.key: entry.value.decode() for entry in found if entry}


def test_resemblance_is_one_for_the_same_words_and_small_for_others() -> None:
    same, near, other = (minhash(text.lower().split()) for text in (CRASH, CRASH_TOO, OTHER))
    assert resemblance(same, minhash(CRASH.lower().split())) == 1.0
    assert resemblance(same, near) >= 0.7
    assert resemblance(same, other) <= 0.2


async def test_a_look_alike_is_listed_under_the_younger_issue(board: SqliteBoard, context: ContextOf) -> None:
    older, younger = await issue(1, CRASH), await issue(2, CRASH_TOO)
    await duplicates(older, context("a"))
    compared = await duplicates(younger, context("b"))
    assert compared.lookalikes_key == "issues/lookalikes/brewlab/teapot/2"
    entry = await board.get(compared.lookalikes_key)
    assert entry is not None
    assert b"brewlab/teapot#1" in entry.value
    assert await board.get("issues/lookalikes/brewlab/teapot/1") is None


async def test_what_is_emitted_depends_on_the_text_alone(context: ContextOf) -> None:
    alone = await duplicates(await issue(2, CRASH_TOO), context("a"))
    await duplicates(await issue(1, CRASH), context("b"))
    in_company = await duplicates(await issue(2, CRASH_TOO), context("c"))
    assert alone == in_company


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))))
async def test_the_board_ends_up_the_same_in_any_order(
    order: tuple[int, ...], board: SqliteBoard, context: ContextOf
) -> None:
    issues = [await issue(n + 1, body) for n, body in enumerate((CRASH, CRASH_TOO, OTHER, CRASH))]
    for place in order:
        await duplicates(issues[place], context(f"task-{place}"))
    score = resemblance(*(minhash(text.lower().split()) for text in (CRASH, CRASH_TOO)))
    assert await lookalikes(board) == {
        "issues/lookalikes/brewlab/teapot/2": f'{{"brewlab/teapot#1":{score}}}',
        "issues/lookalikes/brewlab/teapot/4": f'{{"brewlab/teapot#1":1.0,"brewlab/teapot#2":{score}}}',
    }


async def test_the_same_issue_again_is_no_look_alike_of_itself(board: SqliteBoard, context: ContextOf) -> None:
    for action in ("opened", "labeled", "closed"):
        await duplicates(await issue(1, CRASH, action=action), context(action))
    assert await lookalikes(board) == {}


async def test_a_repeated_task_changes_nothing(board: SqliteBoard, context: ContextOf) -> None:
    await duplicates(await issue(1, CRASH), context("a"))
    await duplicates(await issue(2, CRASH), context("b"))
    before = {key: await board.get(key) for key in await board.keys()}
    await duplicates(await issue(2, CRASH), context("b"))
    await duplicates(await issue(2, CRASH), context("a redelivery"))
    assert {key: await board.get(key) for key in await board.keys()} == before


async def test_other_repositories_are_not_compared(board: SqliteBoard, context: ContextOf) -> None:
    first = await issue(1, CRASH)
    await duplicates(first, context("a"))
    second = first.model_copy(update={"repository": "brewlab/handbook", "item": "brewlab/handbook#2", "number": 2})
    await duplicates(second, context("b"))
    assert await lookalikes(board) == {}


async def test_short_texts_are_not_compared(board: SqliteBoard, context: ContextOf) -> None:
    compared = await duplicates(await issue(1, "TEST edit"), context("a"))
    assert not compared.comparable
    assert await board.keys() == []


async def test_memory_is_bounded(board: SqliteBoard, context: ContextOf) -> None:
    for number in range(1, ENTRIES_MAX + 6):
        await duplicates(await triaged_issue("", CRASH, number=number), context(str(number)))
    keys = await board.keys("issues/seen/*")
    assert len(keys) == BANDS
    entry = await board.get(keys[0])
    assert entry is not None
    assert entry.value.count(b'"item"') == ENTRIES_MAX
