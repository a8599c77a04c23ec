"""The example agents in the sandbox: the same outcomes again, and other ones exactly where an agent was changed."""

from pathlib import Path
from typing import Any

import orjson
import pytest

from agents.orders import pricing
from agents.orders.events import OrderPlaced, OrderPriced
from mesh.adapters.sqlite import SqliteLog
from mesh.adapters.sqlite.board_history import read_past_values
from mesh.app.sandbox import rerun_of, run_in_sandbox, sandbox
from mesh.app.wiring import load_agents
from mesh.core.replay.run_diff import RunDiff, RunSide, run_diff
from mesh.core.task.agent import agent_of
from mesh.operations.replay.past_board import read_past_board
from mesh.operations.replay.run_facts import RunFacts, read_run_facts
from mesh.operations.replay.task_answers import Period
from mesh.services.worker.environment import Recorded
from mesh.testing import MeshTest

PROJECT = Path(__file__).parents[2]
DATA = PROJECT.parent / "shared" / "data" / "github-webhooks.jsonl"
ALONE_EVERY = 60
"""One of this number of webhooks runs again in a sandbox of its own."""

needs_data = pytest.mark.skipif(not DATA.is_file(), reason="NOT RUN: ../shared/data/github-webhooks.jsonl is not there")


def compared(recorded: RunFacts, new: RunFacts) -> RunDiff:
    sides = [RunSide(facts.outcome, facts.tasks, facts.last_answers) for facts in (recorded, new)]
    return run_diff(sides[0], sides[1])


async def record(mesh: MeshTest, payloads: list[Any], type: str = "github.webhook") -> list[RunFacts]:
    found = []
    for payload in payloads:
        run = await mesh.publish(type, payload)
        await run.outcome(timeout_s=60)
        found.append(await read_run_facts(mesh.log, mesh.topology, run.id))
    return found


@needs_data
async def test_all_webhooks_give_their_recorded_outcomes_again() -> None:
    webhooks = [orjson.loads(line) for line in DATA.read_bytes().splitlines()]
    assert len(webhooks) == 250
    async with MeshTest(str(PROJECT / "topics.yaml")) as mesh:
        facts = await record(mesh, webhooks)
        agents = load_agents(mesh.topology)
        recorded = Recorded(
            {id: time for each in facts for id, time in each.times.items()},
            orders={each.run_id: list(each.answers) for each in facts},
        )
        at_ms = facts[0].requests[0].at_ms
        async with sandbox(mesh.topology, agents, at_ms=at_ms, recorded=recorded) as box:
            again = [await box.run(each.requests, timeout_s=60) for each in facts]
        differing = [n for n, pair in enumerate(zip(facts, again, strict=True)) if not compared(*pair).same]
        assert differing == []
        assert isinstance(mesh.log, SqliteLog)
        for each in facts[::ALONE_EVERY]:  # in a sandbox of its own, with the board of its moment
            moment_ms = each.requests[0].at_ms
            embedded = read_past_values(mesh.log.file, mesh.topology.prefix, moment_ms)
            past = await read_past_board(mesh.log, mesh.topology, Period(moment_ms, moment_ms), embedded)
            rerun = rerun_of(each, mesh.topology, board=past.values(moment_ms, but=each.writers))
            alone = await run_in_sandbox(mesh.topology, agents, rerun, timeout_s=60)
            assert compared(each, alone).outcome == []


async def price_without_tax_in_germany(order: OrderPlaced) -> OrderPriced:
    priced = await pricing.price(order)
    return priced.model_copy(update={"tax_cents": 0}) if priced.country == "DE" else priced


async def test_of_20_orders_exactly_those_differ_that_a_changed_agent_answers_otherwise() -> None:
    orders = [orjson.loads(line) for line in (PROJECT / "agents/samples/orders.jsonl").read_bytes().splitlines()]
    german = {n for n, order in enumerate(orders) if order.get("country", "").strip().upper() in ("DE", "")}
    assert (len(orders), 0 < len(german) < 20) == (20, True)
    async with MeshTest(str(PROJECT / "topics.yaml")) as mesh:
        facts = await record(mesh, orders, "order.placed")
        agents = {**load_agents(mesh.topology), "pricing": agent_of(price_without_tax_in_germany)}
        recorded = Recorded(
            {id: time for each in facts for id, time in each.times.items()},
            orders={each.run_id: list(each.answers) for each in facts},
        )
        async with sandbox(mesh.topology, agents, at_ms=facts[0].requests[0].at_ms, recorded=recorded) as box:
            diffs = [compared(each, await box.run(each.requests, timeout_s=60)) for each in facts]
    assert {n for n, diff in enumerate(diffs) if not diff.same} == german
    for n in german:
        first = next(iter(diffs[n].differing))
        assert (first.agent, first.given_same) == ("pricing", True)
        assert [(each.place, each.got) for each in first.differences] == [("order.priced.tax_cents", "0")]
