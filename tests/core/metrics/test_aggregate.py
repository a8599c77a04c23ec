"""Aggregates merge in any order, and survive JSON."""

import orjson
from hypothesis import given
from hypothesis import strategies as st

from mesh.core.metrics.aggregate import Aggregate, merged

CHANGES = st.lists(
    st.tuples(st.sampled_from(["errors", "tokens", "work_ms", "drift"]), st.booleans(), st.integers(0, 10**6))
)


def of(changes: list[tuple[str, bool, int]]) -> Aggregate:
    aggregate = Aggregate()
    for name, counted, value in changes:
        (aggregate.count if counted else aggregate.observe)(name, value)
    return aggregate


@given(CHANGES, CHANGES, CHANGES)
def test_merging_is_associative_and_commutative(a: list, b: list, c: list) -> None:  # type: ignore[type-arg]
    first = merged([merged([of(a), of(b)]), of(c)])
    assert first == merged([of(c), merged([of(b), of(a)])])
    assert first == of([*a, *b, *c])
    assert merged([]) == Aggregate()


@given(CHANGES)
def test_it_survives_json(changes: list[tuple[str, bool, int]]) -> None:
    aggregate = of(changes)
    assert Aggregate.from_json(orjson.loads(orjson.dumps(aggregate.to_json()))) == aggregate


def test_counts_of_a_prefix_are_ordered_by_size() -> None:
    aggregate = of([("errors", True, 3), ("error:a", True, 1), ("error:b", True, 2)])
    assert list(aggregate.with_prefix("error:").items()) == [("b", 2), ("a", 1)]
