"""The wheel of timers against a plain list."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from mesh.core.run.effects import Schedule
from mesh.core.state.timers import BUCKET_MS, Timers

RUNS = {"r", *(f"r{n}" for n in range(60))}


def test_a_timer_is_never_early_and_at_most_one_bucket_late() -> None:
    timers = Timers()
    timers.add(Schedule("r", "t:2:due", 1_001, "t", 2), 1_001)
    assert timers.due(1_000, RUNS) == []
    assert timers.due(1_001 + BUCKET_MS, RUNS) == [Schedule("r", "t:2:due", 1_001, "t", 2)]
    assert timers.next_ms() is None


def test_the_time_at_which_it_fires_may_be_of_another_clock_than_its_own() -> None:
    timers = Timers()
    timers.add(Schedule("r", "t:2:due", 1_795_000_000_000, "t", 2), 500)
    assert timers.due(500 + BUCKET_MS, RUNS) == [Schedule("r", "t:2:due", 1_795_000_000_000, "t", 2)]


def test_a_deadline_comes_back_with_its_run() -> None:
    timers = Timers()
    timers.add(Schedule("run-1", "run-1:deadline", 50), 50)
    (due,) = timers.due(64, {"run-1"})
    assert (due.run_id, due.timer_id, due.task_id) == ("run-1", "run-1:deadline", "")


def test_timers_of_runs_that_are_over_are_dropped() -> None:
    timers = Timers()
    for id in ("open", "over"):
        timers.add(Schedule(id, f"{id}:deadline", 50), 50)
        timers.add(Schedule(id, "t:2:due", 50, "t", 2), 50)
    assert [timer.run_id for timer in timers.due(64, {"open"})] == ["open", "open"]
    assert timers.next_ms() is None


def test_a_timer_returns_whether_it_is_the_first() -> None:
    timers = Timers()
    times = [5_000, 5_000, 5_000 + BUCKET_MS, 5_000 - BUCKET_MS, 5_000]
    assert [timers.add(Schedule("r", "r:deadline", at), at) for at in times] == [True, False, False, True, False]


@given(st.lists(st.integers(0, 2_000), max_size=60), st.lists(st.integers(0, 2_100), min_size=1, max_size=8))
def test_every_timer_comes_out_once_in_time(due_times: list[int], looks: list[int]) -> None:
    timers = Timers()
    for n, due_ms in enumerate(due_times):
        timers.add(Schedule(f"r{n}", f"t{n}:2:due", due_ms, f"t{n}", 2), due_ms)
    seen: list[str] = []
    for now_ms in sorted(looks):
        found = timers.due(now_ms, RUNS)
        assert all(timer.due_ms <= now_ms for timer in found)
        seen.extend(timer.task_id for timer in found)
        following = timers.next_ms()
        assert following is None or following > now_ms
    seen.extend(timer.task_id for timer in timers.due(10_000, RUNS))
    assert sorted(seen) == sorted(f"t{n}" for n in range(len(due_times)))


def test_timers_of_ended_runs_are_swept_in_steps_and_the_others_fire() -> None:
    timers = Timers()
    for n in range(1_000):
        timers.add(Schedule(f"r{n}", f"r{n}:deadline", 60_000 + n), 60_000 + n)
    timers.add(Schedule("r7", "t:2:due", 61_500, "t", 2), 61_500)
    timers.add(Schedule("gone", "t:2:due", 61_600, "t", 2), 61_600)
    held = [len(timers)]
    while held[-1] > 61:  # those of RUNS, and the retry
        timers.sweep(RUNS, 100)
        held.append(len(timers))
        assert len(held) < 20
    assert all(before - after <= 130 for before, after in pairwise(held)), "a little at a time"
    timers.sweep(RUNS, 10_000)
    timers.add(Schedule("r8", "r8:deadline", 61_000), 61_000)
    fired = timers.due(70_000, RUNS)
    assert {timer.run_id for timer in fired} == RUNS - {"r"}
    assert len(fired) == 62
    assert timers.next_ms() is None
