"""Percentiles against distributions whose percentiles are known."""

import math
import random

import pytest

from bench.histogram import PERCENTILES, Histogram


def test_the_percentiles_of_one_to_a_hundred_thousand_are_known() -> None:
    found = Histogram(float(n) for n in range(1, 100_001))
    for percent in PERCENTILES:
        assert found.percentile(percent) == pytest.approx(percent * 1_000, rel=0.005)
    assert (found.count, found.max) == (100_000, 100_000)


def test_the_percentiles_of_an_exponential_distribution_are_its_logarithms() -> None:
    chance = random.Random(7)
    found = Histogram(chance.expovariate(1 / 20) for _ in range(200_000))
    for percent in (50, 90, 99):
        assert found.percentile(percent) == pytest.approx(-20 * math.log(1 - percent / 100), rel=0.03)


def test_few_values_are_ranked_by_the_nearest() -> None:
    found = Histogram([5.0, 1.0, 3.0, 2.0, 4.0])
    assert [found.percentile(percent) for percent in (0, 20, 21, 50, 99.9, 100)] == [1, 1, 2, 3, 5, 5]
    assert Histogram().percentile(99) == 0


def test_one_outlier_in_a_thousand_is_the_maximum_and_no_percentile_below() -> None:
    found = Histogram([*[1.0] * 999, 5_000.4])
    assert [found.percentile(percent) for percent in (50, 99, 99.9)] == [1, 1, 1]
    assert found.max == 5_000.4
    assert found.percentile(100) <= found.max


def test_values_are_kept_at_three_significant_digits_whatever_their_size() -> None:
    found = Histogram([0.0012345, 12.345, 12_345.0])
    assert found.pairs() == [[0.00123, 1], [12.3, 1], [12_300.0, 1]]


def test_what_was_kept_makes_the_same_histogram_again() -> None:
    first = Histogram([1.0, 1.0, 2.5, 700.0])
    again = Histogram.of(first.pairs())
    assert again.pairs() == first.pairs() == [[1.0, 2], [2.5, 1], [700.0, 1]]
    assert again.count == 4


def test_a_negative_value_is_refused() -> None:
    with pytest.raises(ValueError, match="negative"):
        Histogram([-1.0])
