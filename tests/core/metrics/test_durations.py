"""Durations in buckets."""

from mesh.core.metrics.durations import BOUNDS_S, Durations


def test_a_duration_is_counted_in_the_first_bucket_whose_bound_it_does_not_exceed() -> None:
    durations = Durations()
    for seconds in (0.0, 0.001, 0.0011, 60.0, 1_000.0):
        durations.add(seconds)
    assert durations.buckets[:2] == [2, 1]
    assert durations.buckets[-2:] == [1, 1]
    assert sum(durations.buckets) == 5
    assert durations.sum_s == 0.001 + 0.0011 + 60.0 + 1_000.0


def test_bounds_rise() -> None:
    assert list(BOUNDS_S) == sorted(set(BOUNDS_S))
