"""The digest of a topology: what changes it and what does not."""

import re

import pytest

from mesh.core.protocol.record import StoredRecord
from mesh.core.state.topology_registry import Registry
from mesh.core.topology.digest import digest_of
from mesh.core.topology.loader import load
from mesh.core.topology.serialization import pinned_bytes

ORDERS = """\
mesh:
  name: order-desk
  limits: {depth_max: 8, tasks_max: 64, visits_max: 3, deadline: 60s, budget: {usd: 0.50, tokens: 20000}}
topics:                                   # the domain topics at the edge of the mesh
  orders.placed:  {ingress: order.placed, key: order_id, id: order_id, partitions: 6}
  orders.decided: {egress: [order.fulfilled, order.rejected]}
agents:
  inventory:  {run: "agents.orders.inventory:check", on: order.placed, timeout: 2s,
               emits: [stock.reserved, order.rejected]}
  pricing:    {run: "agents.orders.pricing:price",   on: order.placed, emits: order.priced, lanes: 256}
  fraud:      {run: "agents.orders.fraud:score",     on: order.placed, emits: fraud.scored}
  fulfilment: {run: "agents.orders.fulfilment:ship", on: {all: [stock.reserved, order.priced, fraud.scored]},
               when: "fraud.scored.score < 0.7", emits: order.fulfilled}
"""


def digest(text: str) -> str:
    return load(text).digest


def test_the_digest_is_sixteen_hex_digits_and_stays() -> None:
    assert re.fullmatch("[0-9a-f]{16}", digest(ORDERS))
    assert digest(ORDERS) == digest(ORDERS) == digest_of(load(ORDERS, path="elsewhere.yaml"))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("\nagents:", "\n\n# a note\nagents:"),
        ("{ingress: order.placed, key: order_id", "{key: order_id, ingress: order.placed"),
        ("[stock.reserved, order.rejected]", "[order.rejected, stock.reserved]"),
        ("egress: [order.fulfilled, order.rejected]", "egress: [order.rejected, order.fulfilled]"),
        ("timeout: 2s", "timeout: 2000ms"),
        ("emits: fraud.scored", "emits: [fraud.scored], lanes: 64"),
        ("emits: fraud.scored", "emits: [fraud.scored], cache: 1h"),
        ('"fraud.scored.score < 0.7"', "(fraud.scored.score<0.70)"),
    ],
)
def test_what_does_not_matter_leaves_the_digest(old: str, new: str) -> None:
    assert old in ORDERS
    assert digest(ORDERS.replace(old, new)) == digest(ORDERS)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("depth_max: 8", "depth_max: 9"),
        ("name: order-desk", "name: desk"),
        ('"fraud.scored.score < 0.7"', '"fraud.scored.score < 0.7", otherwise: ignore'),
        ("timeout: 2s", "timeout: 3s"),
        ("< 0.7", "<= 0.7"),
        ("partitions: 6", "partitions: 7"),
        ("lanes: 256", "lanes: 256, retry: {jitter: 0}"),
        (":price", ":other"),
        ("{all: [stock.reserved, order.priced, fraud.scored]}", "[stock.reserved, order.priced, fraud.scored]"),
    ],
)
def test_what_matters_changes_the_digest(old: str, new: str) -> None:
    assert old in ORDERS
    assert digest(ORDERS.replace(old, new)) != digest(ORDERS)


KEYED = ORDERS.replace("on: order.placed, timeout", "on: order.placed, key: order_id, timeout")


@pytest.mark.parametrize("word", ["id: order_id", "key: order_id, id"])
def test_the_words_that_run_ids_follow_from_change_the_digest(word: str) -> None:
    ordered = KEYED.replace("partitions: 6}", "partitions: 6, order: key}")
    assert digest(ordered) != digest(KEYED), "`order: key` itself"
    assert digest(ordered.replace(word, word.replace("order_id", "other"))) != digest(ordered)


def test_a_topology_kept_before_order_was_part_of_the_digest_still_fits() -> None:
    ordered = load(KEYED.replace("partitions: 6}", "partitions: 6, order: key}"))
    kept = Registry(ordered.inbox)
    for n, digest_kept in enumerate([digest(KEYED), ordered.digest, "0" * 16]):
        kept.fold(StoredRecord(ordered.topologies, 0, n, 5, digest_kept.encode(), pinned_bytes(ordered), []))
    assert kept.doubtful == {"0" * 16}
    assert kept.topologies[digest(KEYED)].ordered


def test_the_order_of_agents_matters_only_where_they_consume_the_same() -> None:
    lines = ORDERS.splitlines(keepends=True)
    last_first = [*lines[:7], *lines[11:], *lines[7:11]]
    swapped = [*lines[:7], lines[9], *lines[7:9], *lines[10:]]
    assert digest("".join(last_first)) == digest(ORDERS)
    assert digest("".join(swapped)) != digest(ORDERS), "ids of tasks are made of positions among the rows of a type"
