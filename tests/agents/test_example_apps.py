"""Whole runs of both desks: the samples, all the webhooks at hand, and webhooks bent out of shape."""

import copy
import itertools
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agents.orders.events import sold_key
from mesh import Context
from mesh.adapters.sqlite.board import SqliteBoard
from mesh.adapters.sqlite.storage.file import SqliteFile
from tests.agents.conftest import ContextOf
from tests.agents.orders.placing import value
from tests.agents.walk import PROJECT, Walk, example_mesh, walk

SAMPLES = PROJECT / "agents" / "samples"
DATA = PROJECT.parent / "shared" / "data" / "github-webhooks.jsonl"
PAYLOAD_BYTES_MAX = 131_072
JOINED = {"issue.routed", "pr.routed", "needs.human", "event.noted"}


def lines(path: Path) -> list[Any]:
    return [orjson.loads(line) for line in path.read_bytes().splitlines()]


WEBHOOKS = lines(DATA) if DATA.is_file() else lines(SAMPLES / "github-webhooks.jsonl")
ORDERS = lines(SAMPLES / "orders.jsonl")

needs_data = pytest.mark.skipif(
    not DATA.is_file(),
    reason="NOT RUN: ../shared/data/github-webhooks.jsonl is not there; only the samples were tried",
)


def contexts(context: ContextOf, run_id: str) -> Callable[[str], Context]:
    return lambda agent: context(f"{run_id}.{agent}", run_id=run_id, agent=agent)


def check_webhook_run(run: Walk) -> None:
    """Check the run of a webhook."""
    assert run.starved == ()
    ended = [event for event in run.egress if event.type in JOINED]
    assert len(ended) == 1, [event.type for event in run.egress]
    assert run.agents.count("digest") == 1
    assert max(len(event.data) for event in run.events) <= PAYLOAD_BYTES_MAX


async def outcomes(webhooks: list[Any], order: list[int], context: ContextOf) -> dict[int, list[tuple[str, bytes]]]:
    runs = {n: await walk("github.webhook", webhooks[n], contexts(context, f"run-{n}")) for n in order}
    for run in runs.values():
        check_webhook_run(run)
    return {n: [(event.type, event.data) for event in run.egress] for n, run in runs.items()}


@needs_data
async def test_every_webhook_at_hand_ends_with_one_result(context: ContextOf) -> None:
    kinds = Counter(
        type for events in (await outcomes(WEBHOOKS, [*range(len(WEBHOOKS))], context)).values() for type, _ in events
    )
    assert sum(kinds[type] for type in JOINED) == len(WEBHOOKS) == 250
    assert all(kinds[type] for type in (*JOINED, "reply.drafted"))


@needs_data
async def test_outcomes_do_not_depend_on_the_order_of_runs(tmp_path: Path) -> None:
    order = [*range(len(WEBHOOKS))]
    shuffled = random.Random(7).sample(order, len(order))
    found = []
    for name, sequence in (("straight", order), ("shuffled", shuffled)):
        board = SqliteBoard(SqliteFile(tmp_path / f"{name}.db"), timeout_ms=10_000)
        await board.start()

        def context(task_id: str, *, run_id: str, agent: str, board: SqliteBoard = board) -> Context:
            return Context(
                agent=agent, run_id=run_id, task_id=task_id, attempt=1, depth=1, path=(), deadline_ms=None, board=board
            )

        found.append((await outcomes(WEBHOOKS, sequence, context), await counted(board)))
        await board.close()
    assert found[0] == found[1]


async def counted(board: SqliteBoard) -> dict[str, Any]:
    """Return the counters of the board, which must not depend on the order of events."""
    keys = [key for glob in ("issues/lookalikes/*", "issues/digest/*/count/*") for key in await board.keys(glob)]
    return {key: await value(board, key) for key in keys}


async def test_the_sample_webhooks_show_every_kind_of_ending(context: ContextOf, board: SqliteBoard) -> None:
    samples = lines(SAMPLES / "github-webhooks.jsonl")
    assert all(len(orjson.dumps(sample)) < 2_000 for sample in samples)
    found = await outcomes(samples, [*range(len(samples))], context)
    kinds = {type for events in found.values() for type, _ in events}
    assert kinds == {*JOINED, "reply.drafted"}
    assert await board.get("issues/lookalikes/brewlab/teapot/42") is not None


async def test_every_sample_order_is_decided_once(context: ContextOf, board: SqliteBoard) -> None:
    runs = {o["order_id"]: await walk("order.placed", o, contexts(context, o["order_id"])) for o in ORDERS}
    assert all(run.starved == () and len(run.egress) == 1 for run in runs.values())
    decided = Counter(run.egress[0].payload.get("code", "fulfilled") for run in runs.values())
    assert decided == {"fulfilled": 13, "not_sellable": 4, "high_risk": 2, "out_of_stock": 1}
    shipped = [o for o in ORDERS if runs[o["order_id"]].egress[0].type == "order.fulfilled"]
    units: Counter[str] = Counter()
    for line in itertools.chain.from_iterable(o["lines"] for o in shipped):
        units[line["sku"]] += line["qty"]
    sold = {key: await value(board, key) for key in await board.keys(sold_key("*"))}
    assert {key: count for key, count in sold.items() if count} == {sold_key(sku): n for sku, n in units.items()}


async def test_the_samples_show_every_agent_at_work(context: ContextOf) -> None:
    ran: set[str] = set()
    for type, name in (("github.webhook", "github-webhooks.jsonl"), ("order.placed", "orders.jsonl")):
        for n, payload in enumerate(lines(SAMPLES / name)):
            ran |= set((await walk(type, payload, contexts(context, f"{type}-{n}"))).agents)
    agents = example_mesh()[0].agents
    stand_ins = {name for spec in agents.values() for name in spec.fallback}
    assert ran == set(agents) - stand_ins


# ------------------------------------------------------------------------------------------------ bent out of shape

STRANGE = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=20),
    st.sampled_from(
        ["", " ", "\x00", "x" * 9_000, "漢" * 9_000, "\u202e", "2024-13-99T99:99:99Z", "0001-01-01T00:00:00Z"]
    ),
    st.lists(st.one_of(st.none(), st.integers(-5, 5), st.text(max_size=5)), max_size=3),
    st.dictionaries(st.text(max_size=5), st.none(), max_size=2),
)
REMOVED = object()
NUMBERS = itertools.count()
"""Every example is a run of its own, else the board would recognise its writes and do nothing."""


@st.composite
def bent_webhooks(draw: st.DrawFn) -> Any:
    """A webhook with some of its fields, at any depth, removed or replaced by something strange."""
    webhook = copy.deepcopy(draw(st.sampled_from(WEBHOOKS)))
    for _ in range(draw(st.integers(1, 8))):
        holder: Any = webhook
        while True:
            inner = [k for k, v in holder.items() if isinstance(v, dict) and v]
            if not inner or not draw(st.booleans()):
                break
            holder = holder[draw(st.sampled_from(inner))]
        if holder:
            field = draw(st.sampled_from(sorted(holder)))
            change = draw(st.one_of(st.just(REMOVED), STRANGE))
            if change is REMOVED:
                del holder[field]
            else:
                holder[field] = change
    return webhook


@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
@given(webhook=bent_webhooks())
async def test_a_webhook_bent_out_of_shape_ends_like_any_other(webhook: Any, context: ContextOf) -> None:
    check_webhook_run(await walk("github.webhook", webhook, contexts(context, f"run-{next(NUMBERS)}")))


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    payload=st.recursive(STRANGE, lambda inner: st.dictionaries(st.text(max_size=9), inner, max_size=4), max_leaves=9)
)
@pytest.mark.parametrize(
    "event", ["issues", "issue_comment", "discussion", "commit_comment", "pull_request", "push", None]
)
async def test_any_json_at_all_as_body_ends_well(event: str | None, payload: Any, context: ContextOf) -> None:
    check_webhook_run(
        await walk("github.webhook", {"event": event, "payload": payload}, contexts(context, f"run-{next(NUMBERS)}"))
    )
