"""The tracker of offsets against a naive model: a list of what was taken and a set of what is finished."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, precondition, rule

from mesh.core.task.offsets import OffsetTracker


def taken(*offsets: int) -> OffsetTracker:
    tracker = OffsetTracker()
    for offset in offsets:
        tracker.take(offset)
    return tracker


def test_nothing_taken_is_nothing_to_commit() -> None:
    assert OffsetTracker().commit_offset() is None


def test_only_the_contiguous_prefix_may_be_committed() -> None:
    tracker = taken(10, 11, 12)
    tracker.finish(12)
    tracker.finish(11)
    assert tracker.commit_offset() == 10
    tracker.finish(10)
    assert tracker.commit_offset() == 13


def test_gaps_in_the_log_are_stepped_over() -> None:
    tracker = taken(5, 9, 40)
    tracker.finish(5)
    assert tracker.commit_offset() == 9
    tracker.finish(40)
    tracker.finish(9)
    assert tracker.commit_offset() == 41


def test_the_span_that_a_crash_would_repeat_counts_what_is_finished_behind_a_gap() -> None:
    tracker = taken(1, 2, 3)
    tracker.finish(3)
    assert len(tracker) == 3
    tracker.finish(1)
    assert len(tracker) == 2


def test_offsets_rise() -> None:
    tracker = taken(7)
    for offset in (7, 6, 0):
        with pytest.raises(ValueError, match=f"offset {offset} was added after 7"):
            tracker.take(offset)


def test_what_is_not_in_work_cannot_be_finished() -> None:
    tracker = taken(7, 9)
    tracker.finish(9)
    for offset in (6, 8, 9, 10):
        with pytest.raises(ValueError, match=f"offset {offset} is not in work"):
            tracker.finish(offset)
    tracker.finish(7)
    with pytest.raises(ValueError, match="offset 7 is not in work"):
        tracker.finish(7)


class Tracked(RuleBasedStateMachine):
    """Take, finish and commit in any order."""

    working: Bundle[int] = Bundle("working")

    def __init__(self) -> None:
        super().__init__()
        self.tracker = OffsetTracker()
        self.taken: list[int] = []
        self.finished: set[int] = set()

    @rule(target=working, gap=st.integers(1, 5))
    def take(self, gap: int) -> int:
        offset = (self.taken[-1] if self.taken else -1) + gap
        self.tracker.take(offset)
        self.taken.append(offset)
        return offset

    @rule(offset=consumes(working))
    def finish(self, offset: int) -> None:
        self.tracker.finish(offset)
        self.finished.add(offset)

    @precondition(lambda self: self.taken)
    @rule(data=st.data())
    def finish_what_is_not_in_work(self, data: st.DataObject) -> None:
        offset = data.draw(st.integers(-1, self.taken[-1] + 2))
        if offset not in self.taken or offset in self.finished:
            with pytest.raises(ValueError, match="not in work"):
                self.tracker.finish(offset)

    @invariant()
    def the_place_is_that_of_the_model(self) -> None:
        working = [offset for offset in self.taken if offset not in self.finished]
        place = working[0] if working else self.taken[-1] + 1 if self.taken else None
        assert self.tracker.commit_offset() == place
        assert all(offset in self.finished for offset in self.taken if place is not None and offset < place)
        assert all(self.tracker.is_finished(offset) == (offset in self.finished) for offset in self.taken)
        assert not self.tracker.is_finished(-1)
        assert self.tracker.reaches(6) == (bool(self.taken) and self.taken[-1] >= 6)
        assert len(self.tracker) == sum(place is not None and offset >= place for offset in self.taken)


TestTracked = Tracked.TestCase
TestTracked.settings = settings(max_examples=100, stateful_step_count=40)
