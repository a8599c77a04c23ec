"""A backlog is told from offsets alone: how much, since when, how fast."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from mesh.core.scaling.lag import MARKS_MAX, WINDOW_MS, BacklogSampler, GroupLag, GroupOffsets, group_lag


def test_lag_is_what_is_not_committed_in_all_partitions() -> None:
    load = BacklogSampler().sample(0, {0: GroupOffsets(10, 13), 1: GroupOffsets(5, 5), 2: GroupOffsets(0, 40)})
    assert (load.lag, load.partitions) == (43, 3)
    assert (load.fullest, load.fullest_lag) == (2, 40)


def test_a_place_beyond_the_end_is_no_negative_lag() -> None:
    assert GroupOffsets(7, 3).lag == 0


def test_rates_are_those_since_the_first_sample_of_the_window() -> None:
    backlog = BacklogSampler()
    assert backlog.sample(0, {0: GroupOffsets(0, 100)}).answered == 0
    load = backlog.sample(2_000, {0: GroupOffsets(50, 400)})
    assert (load.arriving, load.answered, load.gaining, load.samples) == (150, 25, -125, 2)
    load = backlog.sample(2_000 + WINDOW_MS, {0: GroupOffsets(50 + 5 * 7, 400)})
    assert (load.arriving, load.answered) == (0, 7)


def test_rates_begin_again_when_the_workers_have_changed() -> None:
    backlog = BacklogSampler()
    backlog.sample(0, {0: GroupOffsets(0, 100)})
    assert backlog.sample(1_000, {0: GroupOffsets(10, 100)}, restarted=True).samples == 1
    assert backlog.sample(2_000, {0: GroupOffsets(90, 100)}).answered == 80


def test_the_oldest_task_ages_until_it_is_committed() -> None:
    backlog = BacklogSampler()
    assert backlog.sample(0, {0: GroupOffsets(0, 0)}).age_ms == 0
    assert backlog.sample(1_000, {0: GroupOffsets(0, 3)}).age_ms == 0
    assert backlog.sample(2_000, {0: GroupOffsets(1, 9)}).age_ms == 1_000
    assert (
        backlog.sample(3_000, {0: GroupOffsets(3, 9)}).age_ms == 1_000
    )  # those of the second sample are the oldest now
    assert backlog.sample(4_000, {0: GroupOffsets(9, 9)}).age_ms == 0
    assert backlog.sample(5_000, {0: GroupOffsets(9, 10)}).age_ms == 0


def test_the_age_is_that_of_the_worst_partition() -> None:
    backlog = BacklogSampler()
    backlog.sample(0, {0: GroupOffsets(0, 1), 1: GroupOffsets(0, 0)})
    assert backlog.sample(500, {0: GroupOffsets(0, 1), 1: GroupOffsets(0, 5)}).age_ms == 500


def test_a_recreated_topic_begins_again() -> None:
    backlog = BacklogSampler()
    backlog.sample(0, {0: GroupOffsets(0, 100)})
    load = backlog.sample(9_000, {0: GroupOffsets(0, 2)})
    assert (load.lag, load.age_ms, load.arriving) == (2, 0, 0)


def test_nothing_to_read_is_nothing() -> None:
    assert BacklogSampler().sample(0, {}) == (0, 0, 0, 0, 0, 0, 0, 1, (0, 0))


STEPS = st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), min_size=1, max_size=2 * MARKS_MAX)


@given(STEPS)
def test_the_age_is_never_more_than_true_and_at_most_a_sample_less(steps: list[tuple[int, int]]) -> None:
    backlog, arrived, committed = BacklogSampler(), [], 0  # arrived: when each record was appended
    for number, (more, done) in enumerate(steps):
        at_ms = number * 1_000
        arrived += [at_ms - 400] * more
        committed = min(len(arrived), committed + done)
        load = backlog.sample(at_ms, {0: GroupOffsets(committed, len(arrived))})
        true = at_ms - arrived[committed] if committed < len(arrived) else 0
        assert 0 <= load.age_ms <= true
        if number < MARKS_MAX:
            assert true - load.age_ms <= 1_000


def test_what_is_remembered_is_bounded_and_the_oldest_is_kept() -> None:
    backlog = BacklogSampler()
    ages = [backlog.sample(n * 1_000, {0: GroupOffsets(0, n + 1)}).age_ms for n in range(5_000)]
    assert all(later - earlier == 1_000 for earlier, later in pairwise(ages))
    assert len(backlog._marks[0]) <= MARKS_MAX


def test_the_lag_of_a_group_is_that_of_all_its_partitions_and_its_age_that_of_the_oldest_record() -> None:
    places = {0: GroupOffsets(4, 9), 1: GroupOffsets(7, 7), 2: GroupOffsets(0, 2)}
    found = group_lag("echo", "p.tasks.echo", places, oldest_ms={0: 900, 2: 400}, now_ms=1_000)
    assert found == GroupLag("echo", "p.tasks.echo", {0: 5, 1: 0, 2: 2}, 600, None)
    assert found.lag == 7


def test_an_age_is_zero_without_lag_and_unknown_without_the_record() -> None:
    assert group_lag("echo", "t", {0: GroupOffsets(3, 3)}, oldest_ms={}, now_ms=9).age_ms == 0
    assert group_lag("echo", "t", {0: GroupOffsets(3, 4)}, oldest_ms={}, now_ms=9).age_ms is None
    assert group_lag("echo", "t", {0: GroupOffsets(3, 4)}, oldest_ms={0: 50}, now_ms=9).age_ms == 0


def test_each_worker_is_at_most_at_its_lanes() -> None:
    places = {0: GroupOffsets(0, 9), 1: GroupOffsets(0, 9), 2: GroupOffsets(0, 1), 3: GroupOffsets(0, 7)}
    workers = {0: "one", 1: "one", 2: "other"}
    found = group_lag("echo", "t", places, oldest_ms={}, now_ms=0, workers=workers, lanes=4)
    assert found.in_flight == 4 + 1
    assert group_lag("echo", "t", places, oldest_ms={}, now_ms=0, workers={}, lanes=4).in_flight == 0
