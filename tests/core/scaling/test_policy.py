"""The number of workers for a backlog: it rises quickly, falls slowly, keeps the bounds, and is stable at a steady
rate."""

from collections import deque
from collections.abc import Iterator
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.core.scaling.lag import GroupOffsets
from mesh.core.scaling.policy import OVER_SAMPLES, TRUST_MS, Decision, Scaler, ScalingRule, ScalingSample
from mesh.core.topology.model import AgentSpec

AGENT = AgentSpec("echo", "x:y", ("ask",), (), lanes=10)
RULE = ScalingRule(workers_min=1, workers_max=8)


class Plant:
    """A mesh of one agent that follows the scaler: `each` tasks a second and worker, in order of arrival.

    Workers share a number of cores. After a change it takes some seconds until the mesh is stable.
    """

    def __init__(
        self, scaler: Scaler, *, each: float, cores: float = 99, partitions: int = 12, lives_s: int = 2, start: int = 1
    ) -> None:
        self.scaler, self.each, self.cores, self.partitions = scaler, each, cores, partitions
        self.workers, self.at_s, self.changed_s, self.lives_s = start, 0, -99, lives_s
        self.arrived, self.done = 0.0, 0.0
        self.decisions: list[Decision] = []
        self.history: deque[int] = deque()

    def second(self, arriving: float) -> Decision:
        settled = self.at_s - self.changed_s > self.lives_s
        self.arrived += arriving
        self.done = min(self.arrived, self.done + self.each * min(self.workers, self.cores))
        places = {
            number: GroupOffsets(self.share(self.done, number), self.share(self.arrived, number))
            for number in range(self.partitions)
        }
        decision = self.scaler.decide(ScalingSample(self.at_s * 1_000, self.workers, settled, {"echo": places}))
        if decision.workers != self.workers:
            self.workers, self.changed_s = decision.workers, self.at_s
        self.at_s += 1
        self.decisions.append(decision)
        self.history.append(self.workers)
        return decision

    def share(self, total: float, number: int) -> int:
        whole = int(total)
        return whole // self.partitions + (number < whole % self.partitions)

    def run(self, seconds: int, arriving: float) -> list[int]:
        return [self.second(arriving).workers for _ in range(seconds)]


def moves(history: list[int]) -> list[int]:
    return [later - earlier for earlier, later in pairwise(history) if later != earlier]


def sample(
    lag: int, at_s: float, workers: int, *, partitions: int = 12, done: int = 0, settled: bool = True
) -> ScalingSample:
    """`lag` tasks wait, spread evenly, and `done` were answered before."""
    numbers = range(partitions)
    places = {n: GroupOffsets(done, done + lag // partitions + (n < lag % partitions)) for n in numbers}
    return ScalingSample(at_s * 1_000, workers, settled, {"echo": places})


def test_more_only_when_three_samples_in_a_row_say_so() -> None:
    scaler = Scaler(RULE, [AGENT])
    found = [scaler.decide(sample(lag, n, 1)).workers for n, lag in enumerate((100, 100, 0, 100, 100, 100))]
    assert found == [1, 1, 1, 1, 1, 2]
    assert OVER_SAMPLES == 3


def test_it_says_why_with_the_numbers() -> None:
    scaler = Scaler(RULE, [AGENT])
    *_, last = [scaler.decide(sample(1_240, n, 1)) for n in range(3)]
    assert last.why == "1,240 tasks of echo wait (threshold 10), the oldest for 2.0 s"
    assert last.loads["echo"].lag == 1_240


def test_as_many_as_the_lag_asks_for_and_at_most_twice_as_many_at_once() -> None:
    for workers, lag, wanted in ((2, 25, 3), (2, 35, 4), (2, 1_000, 4), (4, 1_000, 8)):
        scaler = Scaler(RULE, [AGENT])
        *_, last = [scaler.decide(sample(lag, n, workers)) for n in range(3)]
        assert last.workers == wanted


def test_many_tasks_on_their_way_are_no_backlog() -> None:
    plant = Plant(Scaler(RULE, [AGENT]), each=10_000)
    plant.arrived = 500  # a tenth of a second's work always lies there
    for _ in range(60):
        plant.done = plant.arrived - 500
        plant.arrived += 5_000
        places = {n: GroupOffsets(plant.share(plant.done, n), plant.share(plant.arrived - 5_000, n)) for n in range(12)}
        assert plant.scaler.decide(ScalingSample(plant.at_s * 1_000, 1, True, {"echo": places})).workers == 1
        plant.at_s += 1


def test_a_backlog_that_is_about_to_be_gone_needs_no_worker() -> None:
    plant = Plant(Scaler(RULE, [AGENT]), each=100)
    plant.arrived = 900
    assert set(plant.run(60, 10)) == {1}


def test_what_is_too_old_is_a_reason_too() -> None:
    scaler = Scaler(ScalingRule(1, 8, age_threshold_ms=5_000), [AGENT])
    found = [scaler.decide(sample(4, n, 1)) for n in range(9)]
    assert [decision.workers for decision in found] == [1] * 8 + [2]
    assert found[-1].why == "4 tasks of echo wait, the oldest for 8.0 s (threshold 5 s)"


def test_an_old_backlog_that_gets_younger_needs_no_worker() -> None:
    scaler, agent = Scaler(ScalingRule(1, 8, lag_threshold=500, age_threshold_ms=5_000), [AGENT]), "echo"
    ages = []
    for n in range(40):  # for ten seconds no worker runs, then two tasks are done for each that arrives
        places = dict.fromkeys(range(12), GroupOffsets(max(0, n - 10) * 2, n))
        decision = scaler.decide(ScalingSample(n * 1_000, 1, n > 10, {agent: places}))
        assert decision.workers == 1
        ages.append(decision.loads[agent].age_ms)
    assert sum(age > 5_000 for age in ages[11:]) >= 3
    assert ages[-1] == 0


def test_without_thresholds_an_agent_s_own_limits_count() -> None:
    scaler = Scaler(RULE, [AgentSpec("echo", "x:y", ("ask",), (), lanes=500, timeout_ms=2_000)])
    found = [scaler.decide(sample(400, n, 1)).workers for n in range(6)]
    assert found == [
        1,
        1,
        1,
        1,
        1,
        2,
    ]  # 400 are no more than its lanes; at 3, 4 and 5 s they are older than its timeout


def test_one_full_partition_is_no_reason_and_is_named() -> None:
    scaler = Scaler(RULE, [AGENT])
    places = {n: GroupOffsets(0, 500 if n == 3 else 1) for n in range(12)}
    *_, last = [scaler.decide(ScalingSample(n * 1_000, 1, True, {"echo": places})) for n in range(9)]
    assert (last.workers, last.why) == (1, "")
    assert last.limit == "500 of 511 tasks of echo lie in partition 3, which only one worker at a time can read"


def test_no_worker_is_added_before_the_last_ones_are_at_work() -> None:
    scaler = Scaler(RULE, [AGENT])
    found = [scaler.decide(sample(900, n, 2, settled=n > 9)).workers for n in range(13)]
    assert found == [2] * 12 + [4]


def test_partitions_are_the_limit_and_it_says_so() -> None:
    scaler = Scaler(RULE, [AGENT])
    *_, last = [scaler.decide(sample(900, n, 2, partitions=3)) for n in range(3)]
    assert (last.workers, last.limit) == (3, "more than 3 would find no partition")
    *_, last = [scaler.decide(sample(900, n, 3, partitions=3)) for n in range(3, 9)]
    assert (last.workers, last.why) == (3, "")
    assert last.limit.endswith("; more than 3 would find no partition")


def test_max_is_the_limit_and_it_says_so() -> None:
    scaler = Scaler(RULE, [AGENT])
    *_, last = [scaler.decide(sample(900, n, 8)) for n in range(6)]
    assert last.workers == 8
    assert last.limit.endswith("max=8 allows no more")


def test_a_number_out_of_bounds_is_moved_into_them() -> None:
    assert Scaler(ScalingRule(3, 8), [AGENT]).decide(sample(0, 0, 1)).workers == 3
    assert Scaler(ScalingRule(1, 8), [AGENT]).decide(sample(0, 0, 8, partitions=2)).workers == 2


def test_fewer_one_by_one_after_a_calm_cooldown_each() -> None:
    plant = Plant(Scaler(RULE, [AGENT]), each=100, start=4, lives_s=0)
    history = plant.run(120, 0)
    assert moves(history) == [-1, -1, -1]
    changes = [n for n, (earlier, later) in enumerate(pairwise(history)) if earlier != later]
    assert changes[0] >= 29
    assert all(later - earlier >= 30 for earlier, later in pairwise(changes))
    assert "nothing waits, 0.0 a second come in; calm for 30 s" in {decision.why for decision in plant.decisions}


def test_a_short_burst_restarts_the_calm_period() -> None:
    scaler = Scaler(RULE, [AGENT])
    found = [scaler.decide(sample(25 if n == 20 else 0, n, 2)).workers for n in range(60)]
    assert found.index(1) >= 51


def test_what_was_not_seen_was_neither_calm_nor_too_much() -> None:
    scaler = Scaler(RULE, [AGENT])
    times = [*range(20), *range(60, 95)]  # the log was away for 40 s
    found = [scaler.decide(sample(0, n, 2)).workers for n in times]
    assert times[found.index(1)] >= 90
    scaler = Scaler(RULE, [AGENT])
    assert [scaler.decide(sample(900, n, 2)).workers for n in (0, 1, 60, 61, 62)] == [2, 2, 2, 2, 4]


def test_no_worker_is_removed_that_the_others_could_not_replace() -> None:
    plant = Plant(Scaler(RULE, [AGENT]), each=100)
    plant.run(60, 250)
    assert plant.workers == 4
    assert set(plant.run(500, 250)) == {4}  # three do 300 a second at best, and 250 are over 80 % of that
    plant.run(200, 20)
    assert plant.workers == 1


def test_what_was_added_for_its_age_is_not_taken_away_again() -> None:
    plant = Plant(Scaler(ScalingRule(1, 8, lag_threshold=5_000, age_threshold_ms=2_000), [AGENT]), each=100)
    assert moves(plant.run(TRUST_MS // 1_000, 150)) == [1]


def test_an_agent_that_was_stopped_is_no_reason() -> None:
    scaler = Scaler(RULE, [AGENT])
    stopped = [sample(900, n, 2)._replace(stopped=frozenset({"echo"})) for n in range(40)]
    assert scaler.decide(stopped[0]).workers == 2
    assert min(scaler.decide(each).workers for each in stopped[1:]) == 1


def test_the_agent_that_wants_most_decides() -> None:
    other = AgentSpec("slow", "x:y", ("ask",), (), lanes=1)
    scaler = Scaler(RULE, [AGENT, other])
    for n in range(3):
        places = {"echo": sample(12, n, 2).places["echo"], "slow": sample(4, n, 2).places["echo"]}
        last = scaler.decide(ScalingSample(n * 1_000, 2, True, places))
    assert last.workers == 4
    assert last.why.startswith("4 tasks of slow wait (threshold 2)")


def test_what_was_measured_long_ago_is_tried_again_and_then_trusted_longer() -> None:
    plant = Plant(Scaler(RULE, [AGENT]), each=100)
    plant.run(60, 250)
    plant.each = 1_000.0  # the cause of the slowness is over, which is not visible from outside
    assert plant.run(TRUST_MS // 1_000 + 200, 250)[-1] == 1
    wrong = Plant(Scaler(RULE, [AGENT]), each=100)
    tries = [n for n, (a, b) in enumerate(pairwise(wrong.run(4 * 3_600, 250))) if b < a]
    assert len(tries) <= 10


def test_one_task_that_never_ends_adds_no_worker() -> None:
    scaler = Scaler(RULE, [AGENT])
    places = {n: GroupOffsets(0, 1 if n == 3 else 0) for n in range(12)}
    assert {scaler.decide(ScalingSample(n * 1_000, 1, True, {"echo": places})).workers for n in range(200)} == {1}


RATES = st.floats(0, 5_000)


@settings(max_examples=60, deadline=None)
@given(
    arriving=RATES,
    each=st.floats(0.5, 1_000),
    cores=st.floats(1, 12),
    lanes=st.integers(1, 2_000),
    most=st.integers(1, 12),
    partitions=st.integers(1, 16),
    age_ms=st.integers(500, 60_000),
    lives_s=st.integers(0, 5),
    jitter=st.floats(0, 0.1),
)
def test_steady_input_comes_to_rest(
    arriving: float,
    each: float,
    cores: float,
    lanes: int,
    most: int,
    partitions: int,
    age_ms: int,
    lives_s: int,
    jitter: float,
) -> None:
    scaler = Scaler(ScalingRule(1, most, lag_threshold=lanes, age_threshold_ms=age_ms), [AGENT])
    plant = Plant(scaler, each=each, cores=cores, partitions=partitions, lives_s=lives_s)
    history: list[int] = []
    for n in range(TRUST_MS // 2_000):
        history += plant.run(2, arriving * (1 + jitter * (-1) ** n))
    turns = ["up" if move > 0 else "down" for move in moves(history)]
    assert turns == sorted(turns, reverse=True)  # up first, then down, and never up again
    assert set(history) <= set(range(1, min(most, partitions) + 1))


def held(steps: list[tuple[int, int, bool]]) -> Iterator[ScalingSample]:
    end = done = 0
    for n, (more, answered, settled) in enumerate(steps):
        end += more
        done = min(end, done + answered)
        yield ScalingSample(
            n * 1_000,
            0,
            settled,
            {"echo": {0: GroupOffsets(done // 2, end // 2), 1: GroupOffsets(done // 2, end // 2)}},
        )


@given(
    st.lists(st.tuples(st.integers(0, 500), st.integers(0, 500), st.booleans()), max_size=120),
    st.integers(1, 6),
    st.integers(0, 6),
)
def test_bounds_hold_whatever_comes(steps: list[tuple[int, int, bool]], least: int, more: int) -> None:
    rule = ScalingRule(least, least + more, cooldown_ms=3_000)
    scaler, workers = Scaler(rule, [AGENT]), least
    for each in held(steps):
        decision = scaler.decide(each._replace(workers=workers))
        assert min(least, 2) <= decision.workers <= min(least + more, 2)
        assert decision.workers <= 2 * workers
        assert decision.workers >= workers - 1 or decision.workers == min(least, 2)
        assert bool(decision.why) == (decision.workers != workers)
        workers = decision.workers


@settings(deadline=None)
@given(lag=st.integers(0, 500), done=st.integers(0, 300), lanes=st.integers(1, 100), start=st.integers(1, 8))
def test_the_same_backlog_again_and_again_moves_in_one_direction_only(
    lag: int, done: int, lanes: int, start: int
) -> None:
    scaler, workers = Scaler(ScalingRule(1, 8, lag_threshold=lanes), [AGENT]), start
    history = []
    for n in range(300):
        workers = scaler.decide(sample(lag, n, workers, done=done * n)).workers
        history.append(workers)
    assert len({move > 0 for move in moves(history)}) <= 1
