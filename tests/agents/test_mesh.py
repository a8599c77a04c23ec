"""The example apps on the real embedded mesh: orchestrator, worker, log and board in one process."""

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

import orjson

from agents.orders.events import reservation_key
from mesh.client import Outcome
from mesh.testing import MeshTest
from tests.agents.conftest import ContextOf
from tests.agents.orders.placing import value
from tests.agents.test_example_apps import ORDERS, WEBHOOKS, contexts
from tests.agents.walk import TOPICS, walk


async def outcomes(mesh: MeshTest, type: str, payloads: list[Any]) -> list[Outcome]:
    """The outcomes of many runs at once, in the order of the payloads."""
    runs = await mesh.client.send([mesh.client.request(type, payload) for payload in payloads])
    return await asyncio.gather(*(run.outcome(timeout_s=120) for run in runs))


def results(outcome: Outcome) -> list[tuple[str, Any]]:
    return sorted(((result.type, result.data) for result in outcome.results), key=lambda r: r[0])


async def test_webhooks_give_the_same_outcomes_on_the_mesh_as_one_after_another(context: ContextOf) -> None:
    async with MeshTest(str(TOPICS)) as mesh:
        found = await outcomes(mesh, "github.webhook", WEBHOOKS)
    assert Counter(outcome.ending for outcome in found) == {"completed": len(WEBHOOKS)}
    assert len({outcome.run_id for outcome in found}) == len(WEBHOOKS)
    for n, outcome in enumerate(found):
        alone = await walk("github.webhook", WEBHOOKS[n], contexts(context, f"run-{n}"))
        assert results(outcome) == sorted(((e.type, e.payload) for e in alone.egress), key=lambda r: r[0])


async def test_every_sample_order_is_decided_once_even_if_it_is_sent_twice() -> None:
    async with MeshTest(str(TOPICS)) as mesh:
        found = await outcomes(mesh, "order.placed", ORDERS + ORDERS)
        assert Counter(outcome.ending for outcome in found) == {"completed": 2 * len(ORDERS)}
        assert [results(o) for o in found[: len(ORDERS)]] == [results(o) for o in found[len(ORDERS) :]]
        assert len({outcome.run_id for outcome in found}) == len(ORDERS)
        reserved = [await value(mesh.board, reservation_key(order["order_id"])) for order in ORDERS]
    assert Counter(r and r["state"] for r in reserved) == {"shipped": 13, "released": 3, None: 4}


async def test_five_hundred_orders_of_few_things_are_all_fulfilled() -> None:
    orders = [
        {"order_id": f"o-{n}", "email": "a@example.org", "lines": [{"sku": f"sku-00{n % 3}", "qty": 2}]}
        for n in range(500)
    ]
    async with MeshTest(str(TOPICS)) as mesh:
        found = await outcomes(mesh, "order.placed", orders)
        assert Counter(result.type for o in found for result in o.results) == {"order.fulfilled": 500}
        sold = [await value(mesh.board, f"orders/sold/sku-00{n}") for n in range(3)]
    assert sold == [334, 334, 332]


def test_samples_are_one_json_object_a_line() -> None:
    for path in sorted((Path(TOPICS).parent / "agents" / "samples").glob("*.jsonl")):
        assert all(isinstance(orjson.loads(line), dict) for line in path.read_bytes().splitlines())
