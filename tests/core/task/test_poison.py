"""Lives and deaths of workers on one partition: who is suspected, who is begun how often."""

import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.core.task.poison import (
    CLAIM_MAX,
    CLAIM_MIN,
    CLAIM_QUICK_MS,
    DEATHS_MAX,
    ISOLATE_DEATHS_MIN,
    ISOLATED_DEATHS_MAX,
    METADATA_BYTES_MAX,
    CommitMarks,
    PoisonDetector,
    decode,
    encode,
)

END = 600


def heir(text: str, place: int = 0, end: int = END) -> PoisonDetector:
    """Return the detector of a worker that takes over after a commit with this metadata."""
    return PoisonDetector(decode(text, place), place=place, end=end)


FRESH = PoisonDetector(CommitMarks(), place=0, end=END)
BUSY = '{"v":1,"working":true,"claimed":4096}'
"""Commit metadata of a worker that begins very many records."""


# ---------------------------------------------------------------------------------------------------------- metadata

OFFSETS = st.integers(0, 10**12)
MARKS = st.builds(
    CommitMarks,
    st.booleans(),
    OFFSETS,
    OFFSETS,
    st.frozensets(OFFSETS, max_size=400),
    st.dictionaries(OFFSETS, st.integers(2, 3), max_size=400),
)


@given(MARKS, OFFSETS)
def test_metadata_is_read_as_it_was_written_or_suspects_less_and_always_fits(marks: CommitMarks, place: int) -> None:
    text = encode(marks, place)
    found = decode(text, place)
    assert len(text.encode()) <= METADATA_BYTES_MAX
    assert found.working == marks.working
    assert found.marked <= {offset for offset in marks.marked if offset >= place}
    assert found.deaths.items() <= {offset: n for offset, n in marks.deaths.items() if offset >= place}.items()
    if len(marks.marked) + len(marks.deaths) < 100:
        assert found.marked == {offset for offset in marks.marked if offset >= place}
        assert len(found.deaths) == sum(offset >= place for offset in marks.deaths)
        assert found.suspected_below == (marks.suspected_below if marks.suspected_below > place else 0)


def test_of_too_many_the_most_suspected_are_kept() -> None:
    deaths = {n * 10**6: 2 + (n % 50 == 0) for n in range(1_000)}
    kept = decode(encode(CommitMarks(True, deaths=deaths), 0), 0).deaths
    assert {offset for offset, count in deaths.items() if count == 3} <= set(kept)
    assert len(kept) < len(deaths)


@pytest.mark.parametrize(
    "text",
    [
        *("", "x", "[]", "null", "{}", '{"v":2,"working":true}', '{"topology":"abc"}', '{"v":1,"marked":5}'),
        *('{"v":1,"deaths":[[1]]}', '{"v":1,"deaths":{"a":1}}', '{"v":1,"claimed":"x"}', '{"v":1,"claimed":null}'),
    ],
)
def test_what_is_not_ours_says_nothing(text: str) -> None:
    assert decode(text, 5) == CommitMarks()


def test_everyday_metadata_is_short() -> None:
    assert FRESH.metadata(0) == '{"v":1,"working":true,"claimed":64}'
    assert FRESH.metadata(0, working=False) == '{"v":1}'


# ------------------------------------------------------------------------------------------------------------- rules


def test_a_clean_hand_over_suspects_no_task() -> None:
    after = heir(FRESH.metadata(10, working=False), 10)
    assert not after.predecessor_died
    assert (after.suspected_below, after.death_count(10)) == (0, 0)


def test_a_first_death_suspects_what_may_have_been_begun_and_no_more() -> None:
    after = heir(BUSY, 10, end=500)
    assert after.predecessor_died
    assert (after.death_count(10), after.death_count(499), after.death_count(500)) == (1, 1, 0)
    claimed = heir(FRESH.metadata(10), 10, end=10**9)
    assert (claimed.death_count(CLAIM_MIN - 1), claimed.death_count(CLAIM_MIN)) == (1, 0)


def test_a_death_without_work_suspects_no_task() -> None:
    assert heir(FRESH.metadata(END), END).suspected_below <= END


def test_a_second_death_suspects_twice_what_was_marked() -> None:
    second = heir(BUSY, 10, end=100)
    second.claim(140, 0)
    second.mark(12)
    second.mark(15)
    second.mark(17)
    second.clear(15)
    third = heir(second.metadata(10), 10, end=200)
    assert [third.death_count(offset) for offset in (10, 12, 15, 17, 150, 200)] == [1, 2, 1, 2, 1, 0]


def test_a_third_death_marks_the_repeated_task_as_poison_and_suspects_no_other_task_more() -> None:
    third = heir(encode(CommitMarks(True, CLAIM_MAX, 100, frozenset({12, 17}), {}), 10), 10, end=100)
    third.mark(12)
    fourth = heir(third.metadata(10), 10, end=200)
    assert [fourth.death_count(offset) for offset in (12, 17, 150)] == [DEATHS_MAX, 2, 0]


def test_a_suspected_task_that_survived_is_suspected_no_longer() -> None:
    third = heir(encode(CommitMarks(True, CLAIM_MAX, 100, frozenset({12}), {}), 10), 10, end=100)
    third.mark(12)
    third.clear(12)
    assert third.death_count(12) == 1
    fourth = heir(third.metadata(10), 10, end=100)
    assert fourth.death_count(12) == 1


def test_an_interrupted_task_is_suspected_as_before() -> None:
    third = heir(encode(CommitMarks(True, CLAIM_MAX, 100, frozenset({12}), {}), 10), 10, end=100)
    third.mark(12)
    third.unmark(12)
    assert heir(third.metadata(10), 10, end=100).death_count(12) == 2


def test_a_clean_hand_over_keeps_what_is_known() -> None:
    third = heir(encode(CommitMarks(True, CLAIM_MAX, 100, frozenset({12}), {}), 10), 10, end=100)
    after = heir(third.metadata(10, working=False), 10)
    assert not after.predecessor_died
    assert [after.death_count(offset) for offset in (11, 12)] == [1, 2]


def test_what_has_been_passed_is_forgotten() -> None:
    third = heir(encode(CommitMarks(True, CLAIM_MAX, 100, frozenset({12}), {}), 10), 10, end=100)
    assert third.metadata(100, working=False) == '{"v":1}'


def test_a_claim_is_raised_long_before_it_is_needed_by_more_the_quicker_records_begin() -> None:
    watch = PoisonDetector(CommitMarks(), place=0, end=0)
    assert (watch.claimed, watch.claim_from) == (CLAIM_MIN, CLAIM_MIN // 2)
    at, now_ms, claims = 0, 1_000.0, []
    for _ in range(8):
        at = watch.claim_from
        watch.claim(at, now_ms)
        claims.append(watch.claimed - at - 1)
        now_ms += CLAIM_QUICK_MS / 2
    assert claims[1:] == [128, 256, 512, 1_024, 2_048, CLAIM_MAX, CLAIM_MAX]
    for _ in range(8):
        now_ms += CLAIM_QUICK_MS
        watch.claim(watch.claim_from, now_ms)
    assert watch.claimed - watch.claim_from == CLAIM_MIN // 2
    assert watch.version == 16


def test_a_claim_never_shrinks() -> None:
    watch = PoisonDetector(CommitMarks(), place=0, end=0)
    for now_ms in range(10):
        watch.claim(watch.claim_from, now_ms)
    claimed = watch.claimed
    watch.claim(watch.claim_from, 10_000)
    assert watch.claimed >= claimed


# -------------------------------------------------------------------------------------------------------- many lives


class Life:
    """One worker after another on one partition: begins what it may, at random, until a killer or an accident."""

    def __init__(self, killers: set[int], lanes: int, chance: random.Random) -> None:
        self.killers = killers
        self.lanes = lanes
        self.chance = chance
        self.begun: Counter[int] = Counter()
        self.condemned: set[int] = set()
        self.done: set[int] = set()
        self.place = 0
        self.text = ""

    def live(self, accident: int) -> bool:
        """One life; `accident`: it is killed from outside after so many records. False when all was done."""
        watch = heir(self.text, self.place)
        self.text = watch.metadata(self.place)
        inside: list[int] = []
        for offset in [offset for offset in range(self.place, END) if offset not in self.done]:
            assert watch.death_count(offset) < ISOLATED_DEATHS_MAX  # only its own process speaks against it
            apart = watch.death_count(offset) >= ISOLATE_DEATHS_MIN
            if watch.death_count(offset):
                watch.mark(offset)
                self.text = watch.metadata(self.place)
            elif offset >= watch.claim_from:
                watch.claim(offset, self.chance.random() * 10_000)
                self.text = watch.metadata(self.place)
            self.begun[offset] += 1
            accident -= 1
            if not accident or (offset in self.killers and not apart):
                return True
            if offset in self.killers:
                self.condemned.add(offset)
            inside.append(offset)
            if apart or len(inside) == self.lanes:
                ended = inside.pop(-1 if apart else self.chance.randrange(len(inside)))
                watch.clear(ended)
                self.done.add(ended)
                if apart or self.chance.random() < 0.3:
                    self.place = next((o for o in range(self.place, END) if o not in self.done), END)
                    self.text = watch.metadata(self.place)
        self.done.update(inside)
        self.text = watch.metadata(END, working=False)
        return False


@settings(max_examples=60, deadline=None)
@given(st.integers(0, END - 1), st.integers(1, 40), st.integers(0, 2**32))
def test_a_killer_is_begun_three_times_and_everything_else_is_done(killer: int, lanes: int, seed: int) -> None:
    life = Life({killer}, lanes, random.Random(seed))
    deaths = 0
    while life.live(accident=0):
        deaths += 1
    assert deaths == DEATHS_MAX - 1
    assert life.begun[killer] == DEATHS_MAX
    assert life.condemned == {killer}
    assert life.done == set(range(END))


@settings(max_examples=60, deadline=None)
@given(st.sets(st.integers(0, END - 1), max_size=6), st.integers(1, 40), st.integers(0, 2**32))
def test_of_several_poison_tasks_none_is_begun_more_often_and_no_other_task_is_given_up(
    killers: set[int], lanes: int, seed: int
) -> None:
    life = Life(killers, lanes, random.Random(seed))
    while life.live(accident=0):
        pass
    assert life.condemned == killers
    assert max((life.begun[killer] for killer in killers), default=0) <= DEATHS_MAX
    assert life.done == set(range(END))


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 40), st.integers(0, 2**32))
def test_processes_that_are_killed_repeatedly_while_they_progress_give_up_no_task(lanes: int, seed: int) -> None:
    chance = random.Random(seed)
    life = Life(set(), lanes, chance)
    deaths = 0
    while life.live(accident=3 * lanes + chance.randrange(100)):
        deaths += 1
        assert deaths < END
    assert not life.condemned
    assert life.done == set(range(END))


def test_a_worker_that_returns_to_its_own_work_has_not_died() -> None:
    first = PoisonDetector(CommitMarks(), place=0, end=END, by="one")
    first.mark(3)
    said = decode(first.metadata(0), 0)
    assert said.by == "one"
    again, other = PoisonDetector(said, place=0, end=END, by="one"), PoisonDetector(said, place=0, end=END, by="two")
    assert (again.predecessor_died, again.death_count(3)) == (False, 0)
    assert (other.predecessor_died, other.death_count(3)) == (True, 1)


def test_a_worker_that_returns_after_an_outage_suspects_no_task_and_forgets_nothing() -> None:
    left = PoisonDetector(CommitMarks(suspected_below=50, deaths={7: 2}), place=0, end=END, by="other").metadata(0)
    back = PoisonDetector(decode(left, 0), place=0, end=END, by="one", away=True)
    assert not back.predecessor_died
    assert [back.death_count(offset) for offset in (7, 49, 50)] == [2, 1, 0]
    assert heir(left).predecessor_died
