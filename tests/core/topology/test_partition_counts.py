"""Numbers of partitions that are not as declared, and what to do about each."""

from mesh.core.topology.loader import load
from mesh.core.topology.partition_counts import find_mismatches, partitions_declared, problems_of, remedies_for

MESH = load("""
mesh: {name: shop, inbox: {partitions: 4}}
topics:
  asks: {ingress: ask, partitions: 2}
agents:
  echo: {run: "x:y", on: ask}
""")
DECLARED = partitions_declared(MESH)


def test_own_topics_have_as_many_as_the_inbox_or_one() -> None:
    many = {"shop.inbox", "shop.outcomes", "shop.dead", "shop.checkpoints", "shop.tasks.echo"}
    assert {name for name, number in DECLARED.items() if number == 4} == many
    assert DECLARED.pop("asks") == 2
    assert set(DECLARED.values()) == {4, 1}
    DECLARED["asks"] = 2


def test_topics_as_declared_and_topics_that_are_missing_are_not_named() -> None:
    assert find_mismatches(MESH, DECLARED) == find_mismatches(MESH, {}) == find_mismatches(MESH, {"other": 9}) == []


def test_an_ingress_topic_is_declared_as_it_is() -> None:
    (found,) = find_mismatches(MESH, {**DECLARED, "asks": 1})
    assert (found.text, found.line) == ("asks has 1 partition, 2 declared", 4)
    assert found.remedy == (
        "Write `partitions: 1` for topic asks (topics.yaml:4), or declare a topic of another name instead"
    )


def test_the_inbox_and_what_follows_it_have_one_remedy() -> None:
    found = find_mismatches(MESH, {name: 7 if number == 4 else number for name, number in DECLARED.items()})
    assert len(found) == 5
    assert remedies_for(found) == ["Write `inbox: {partitions: 7}` below `mesh:`, or start again under a new `prefix`"]
    (problem,) = problems_of(found)
    assert problem.what.startswith("shop.inbox has 7 partitions, 4 declared; ")


def test_one_own_topic_that_differs_is_made_again() -> None:
    for name in ("shop.tasks.echo", "shop.control"):
        (found,) = find_mismatches(MESH, {**DECLARED, name: 3})
        assert found.remedy == f"Remove topic {name} if it holds nothing that is needed, and run `mesh topics create`"
