"""Delays of retries."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.core.run.backoff import delay_ms
from mesh.core.topology.model import Retry

RETRIES = st.builds(
    Retry,
    first_ms=st.integers(0, 10**6),
    factor=st.floats(1, 100),
    delay_ms_max=st.integers(0, 10**8),
    jitter=st.floats(0, 1),
)


def test_delays_grow_by_the_factor_up_to_the_cap() -> None:
    retry = Retry(first_ms=100, factor=2, delay_ms_max=1_000, jitter=0)
    assert [delay_ms(retry, attempt, seed="t") for attempt in range(1, 7)] == [100, 200, 400, 800, 1_000, 1_000]


def test_a_factor_of_one_waits_always_equally_long() -> None:
    retry = Retry(first_ms=100, factor=1, delay_ms_max=1_000, jitter=0)
    assert {delay_ms(retry, attempt, seed="t") for attempt in (1, 2, 50, 10**9)} == {100}


@pytest.mark.parametrize("attempt", [65, 1_000, 10**9])
def test_the_cap_holds_however_often_it_was_tried(attempt: int) -> None:
    assert delay_ms(Retry(first_ms=1, delay_ms_max=5_000, jitter=0), attempt, seed="t") == 5_000
    assert delay_ms(Retry(first_ms=0, delay_ms_max=5_000, jitter=0), 5, seed="t") == 0


def test_a_small_factor_grows_slowly_however_often_it_was_tried() -> None:
    retry = Retry(first_ms=1_000, factor=1.001, delay_ms_max=5_000, jitter=0)
    assert [delay_ms(retry, attempt, seed="t") for attempt in (64, 65, 66)] == [1_065, 1_066, 1_067]


def test_jitter_follows_from_the_task_and_the_attempt() -> None:
    retry = Retry(first_ms=10_000, delay_ms_max=10_000, jitter=0.5)
    assert delay_ms(retry, 1, seed="t") == delay_ms(retry, 1, seed="t")
    assert len({delay_ms(retry, 1, seed=f"task-{n}") for n in range(20)}) > 15
    assert delay_ms(retry, 1, seed="t") != delay_ms(retry, 2, seed="t")


@given(RETRIES, st.integers(1, 10**6), st.text(max_size=5))
def test_a_delay_is_never_negative_nor_beyond_the_cap(retry: Retry, attempt: int, seed: str) -> None:
    assert 0 <= delay_ms(retry, attempt, seed=seed) <= retry.delay_ms_max


@given(st.integers(1, 10**4), st.floats(0, 1), st.text(max_size=5))
def test_jitter_takes_off_at_most_its_fraction(first_ms: int, jitter: float, seed: str) -> None:
    delay = delay_ms(Retry(first_ms=first_ms, delay_ms_max=10**6, jitter=jitter), 1, seed=seed)
    assert round(first_ms * (1 - jitter)) - 1 <= delay <= first_ms
