"""A recorded run is taken again by the functions of today, on a private mesh in a temporary folder."""

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from mesh import Context, Payload
from mesh.adapters.sqlite import SqliteLog
from mesh.adapters.sqlite.board_history import read_past_values
from mesh.app.agent_replay import FOLDER_PREFIX
from mesh.app.sandbox import Rerun, rerun_of, run_in_sandbox
from mesh.core.board.past_values import PastValue
from mesh.core.dead_letters.patch import parse_patch
from mesh.core.errors import InvalidInput
from mesh.core.replay.answer_diff import Ignored
from mesh.core.replay.run_diff import RunDiff, RunSide, run_diff
from mesh.core.task.agent import agent_of
from mesh.operations.replay.past_board import read_past_board
from mesh.operations.replay.run_facts import RunFacts, read_run_facts
from mesh.operations.replay.task_answers import Period
from mesh.testing import MeshTest


class Placed(Payload, type="order.placed"):
    n: int


class Stock(Payload, type="stock.checked"):
    left: int
    drawn: float
    at_ms: int


class Price(Payload, type="order.priced"):
    cents: int


class Shipped(Payload, type="order.shipped"):
    cents: int
    left: int


calls: list[tuple[str, bool]] = []


async def check(order: Placed, ctx: Context) -> Stock:
    calls.append(("check", ctx.sandbox))
    sold = await ctx.board.add("sold", order.n)
    return Stock(left=100 - sold.value, drawn=ctx.random().random(), at_ms=ctx.now_ms)


def price(order: Placed, ctx: Context) -> Price:
    calls.append(("price", ctx.sandbox))
    if order.n == 13 and ctx.attempt == 1:
        raise OSError("again, please")
    return Price(cents=order.n * 5)


async def ship(stock: Stock, price: Price, ctx: Context) -> Shipped:
    calls.append(("ship", ctx.sandbox))
    return Shipped(cents=price.cents, left=stock.left)


async def dearer(order: Placed) -> Price:
    return Price(cents=order.n * 5 + (1 if order.n in (2, 3) else 0))


FUNCTIONS = (check, price, ship)
OPTIONS = {"price": {"retry": {"attempts": 2, "first": "20ms"}}}


def mesh_of() -> MeshTest:
    calls.clear()
    return MeshTest.of(*FUNCTIONS, options=OPTIONS)


async def one_run(mesh: MeshTest, n: int, **options: Any) -> RunFacts:
    run = await mesh.publish("order.placed", {"n": n}, **options)
    await run.outcome(timeout_s=30)
    return await read_run_facts(mesh.log, mesh.topology, run.id)


async def board_at(mesh: MeshTest, facts: RunFacts) -> Sequence[PastValue]:
    assert isinstance(mesh.log, SqliteLog)
    at_ms = facts.requests[0].at_ms
    embedded = read_past_values(mesh.log.file, mesh.topology.prefix, at_ms)
    return (await read_past_board(mesh.log, mesh.topology, Period(at_ms, at_ms), embedded)).values(
        at_ms, but=facts.writers
    )


async def again(mesh: MeshTest, rerun: Rerun, swapped: Mapping[str, Callable[..., Any]] | None = None) -> RunFacts:
    functions = {function.__name__: function for function in FUNCTIONS} | dict(swapped or {})
    agents = {name: agent_of(function) for name, function in functions.items()}
    return await run_in_sandbox(mesh.topology, agents, rerun, timeout_s=20)


def compared(recorded: RunFacts, new: RunFacts, *ignored: str) -> RunDiff:
    sides = [RunSide(facts.outcome, facts.tasks, facts.last_answers) for facts in (recorded, new)]
    return run_diff(sides[0], sides[1], Ignored(ignored))


@pytest.mark.parametrize("n", [4, 13])
async def test_a_run_gives_the_same_again_with_the_same_ids_and_the_board_of_that_moment(n: int) -> None:
    async with mesh_of() as mesh:
        await one_run(mesh, 7)
        facts = await one_run(mesh, n)
        await one_run(mesh, 9)
        board = await board_at(mesh, facts)
        calls.clear()
        new = await again(mesh, rerun_of(facts, mesh.topology, board=board))
        standing = await mesh.board.get("sold")
    assert compared(facts, new) == RunDiff([], compared(facts, new).tasks)
    assert compared(facts, new).same
    assert new.run_id == facts.run_id
    assert list(new.tasks) == list(facts.tasks)
    assert set(new.last_answers) == set(facts.last_answers)
    assert {sandboxed for _, sandboxed in calls} == {True}
    assert len(calls) == (4 if n == 13 else 3)
    assert standing is not None
    assert int(standing.value) == 7 + n + 9  # the mesh itself is untouched


async def test_an_edited_request_gives_another_outcome() -> None:
    async with mesh_of() as mesh:
        facts = await one_run(mesh, 4)
        new = await again(mesh, rerun_of(facts, mesh.topology, patches=[parse_patch("n=6")]))
    found = compared(facts, new)
    assert [(each.place, each.expected, each.got) for each in found.outcome] == [
        ("order.shipped.cents", "20", "30"),
        ("order.shipped.left", "96", "94"),
    ]
    assert new.run_id == facts.run_id
    assert not any(each.given_same for each in found.first_differences.values())


async def test_of_twenty_orders_exactly_those_differ_that_the_changed_agent_touches() -> None:
    differing = []
    async with mesh_of() as mesh:
        for n in range(1, 21):
            facts = await one_run(mesh, n)
            rerun = rerun_of(facts, mesh.topology, board=await board_at(mesh, facts))
            found = compared(facts, await again(mesh, rerun, {"price": dearer}))
            if not found.same:
                differing.append(n)
                firsts = found.first_differences
                assert n in (2, 3), found
                assert (firsts["price"].given_same, firsts["ship"].given_same) == (True, False)
                assert firsts["price"].differences[0].place == "order.priced.cents"
                assert "check" not in firsts
    assert differing == [2, 3]


async def test_a_run_taken_again_from_a_task_calls_only_what_follows_from_it() -> None:
    async with mesh_of() as mesh:
        facts = await one_run(mesh, 13)
        calls.clear()
        new = await again(mesh, rerun_of(facts, mesh.topology, from_task="price"), {"price": dearer})
        assert calls == [("ship", True)]
        assert compared(facts, new).same
        (ship_id,) = [id for id, task in facts.tasks.items() if task.agent == "ship"]
        calls.clear()
        patches = [parse_patch("order.priced.cents=1")]
        edited = await again(mesh, rerun_of(facts, mesh.topology, from_task=ship_id[:10], patches=patches))
        assert calls == [("ship", True)]
    found = compared(facts, edited)
    assert [(each.place, each.got) for each in found.outcome] == [("order.shipped.cents", "1")]
    assert not found.first_differences["ship"].given_same, "the edit is another input"


async def test_a_task_that_the_run_does_not_have_is_refused_with_those_that_it_has() -> None:
    async with mesh_of() as mesh:
        facts = await one_run(mesh, 1)
        with pytest.raises(InvalidInput, match="no task of the run goes by that name") as caught:
            rerun_of(facts, mesh.topology, from_task="fraud")
    assert "price " in caught.value.expected


async def test_a_deadline_counts_from_the_start_and_an_open_run_is_compared_as_it_is() -> None:
    async def hanging(order: Placed) -> Price:
        await asyncio.Event().wait()
        raise AssertionError("never")

    async with mesh_of() as mesh:
        facts = await one_run(mesh, 2, deadline_s=60)
        same = await again(mesh, rerun_of(facts, mesh.topology))
        agents = {f.__name__: agent_of(f) for f in FUNCTIONS} | {"price": agent_of(hanging)}
        stuck = await run_in_sandbox(mesh.topology, agents, rerun_of(facts, mesh.topology), timeout_s=3)
    assert compared(facts, same).same
    assert stuck.outcome is None
    verdicts = {each.agent: each.verdict for each in compared(facts, stuck).tasks}
    assert verdicts == {"check": "same", "price": "unanswered", "ship": "gone"}


KILLED = """
import asyncio, os, sys
from mesh.app.sandbox import sandbox
from mesh.services.worker.environment import Recorded
from mesh.testing import topology_of
from tests.app.test_sandbox import FUNCTIONS, OPTIONS
from mesh.core.task.agent import agent_of

async def main():
    agents = {f.__name__: agent_of(f) for f in FUNCTIONS}
    async with sandbox(topology_of(FUNCTIONS, options=OPTIONS), agents, at_ms=10**12, recorded=Recorded()):
        print("running", flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


def test_a_killed_sandbox_leaves_its_folder_and_nothing_else(tmp_path: Path) -> None:
    place = tmp_path / "temporary"
    place.mkdir()
    environment = {**os.environ, "TMPDIR": str(place), "HOME": str(tmp_path)}
    root = Path(__file__).parents[2]
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED], env=environment, cwd=root, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "running\n"
    process.send_signal(signal.SIGKILL)
    process.wait(20)
    process.stdout.close()
    (left,) = os.listdir(place)
    assert left.startswith(FOLDER_PREFIX)
    assert os.listdir(tmp_path) == ["temporary"]


async def test_nothing_is_left_after_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with mesh_of() as mesh:
        facts = await one_run(mesh, 1)
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
        await again(mesh, rerun_of(facts, mesh.topology))
    assert os.listdir(tmp_path) == []
