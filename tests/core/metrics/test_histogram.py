"""Histograms: the bound of their error, and merging."""

from math import ceil

from hypothesis import given
from hypothesis import strategies as st

from mesh.core.metrics.histogram import RELATIVE_ERROR, Histogram, bucket_of, middle_of

VALUES = st.lists(st.integers(0, 10**12), min_size=1, max_size=60)


def of(values: list[int]) -> Histogram:
    histogram = Histogram()
    for value in values:
        histogram.add(value)
    return histogram


@given(VALUES, st.sampled_from([0.0, 0.5, 0.95, 0.99, 1.0]))
def test_a_quantile_is_within_the_stated_error(values: list[int], share: float) -> None:
    exact = sorted(values)[max(1, ceil(share * len(values) - 1e-9)) - 1]
    found = of(values).quantile(share)
    assert found is not None
    assert abs(found - exact) <= exact * RELATIVE_ERROR + 0.5


@given(st.integers(0, 49))
def test_small_numbers_are_exact(value: int) -> None:
    assert middle_of(bucket_of(value)) == value


@given(VALUES, VALUES)
def test_merging_is_adding_all_values(first: list[int], second: list[int]) -> None:
    merged = of(first)
    merged.merge(of(second))
    assert merged == of([*second, *first])
    assert merged.count == len(first) + len(second)


@given(VALUES)
def test_it_survives_json(values: list[int]) -> None:
    histogram = of(values)
    assert Histogram.from_json(histogram.to_json()) == histogram


def test_without_values_there_is_no_quantile() -> None:
    assert Histogram().quantile(0.5) is None
    assert of([-5]).quantile(0.5) == 0
