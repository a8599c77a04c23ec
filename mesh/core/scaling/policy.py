"""Scaling policy: the number of worker processes for a backlog. One rule, for `mesh up worker --autoscale`.

    up      In three samples in a row some agent is *over* by lag or by age.
            By lag: more tasks wait than `lagThreshold` for each worker, and more than are answered in a second. The
            backlog will not be gone soon, either.
            By age: the oldest task is older than `ageThreshold` and is not getting younger.
            The new number is lag / lagThreshold (as in KEDA's scaler): at least one more, at most twice as many.
    down    For a whole `cooldownPeriod` every agent was *calm*: with one worker fewer, lag and age would stay far below
            their thresholds. In addition, no more tasks arrived than one worker fewer is known to answer.
            The new number is one worker fewer.
    limits  Always from min to max, and never more than partitions: a worker without a partition has no work.

Between *over* and *calm* lies a wide band without changes. The capacity of a worker is measured only while there is
more than enough work. So the number settles under steady input, instead of rising and falling with the lag. A measured
capacity is trusted for ten minutes; then one worker fewer is tried. Each time that this was wrong, the capacity is
trusted twice as long, at most for two hours.

The need for more workers is judged by the answers of all workers since the last change, not before it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil
from typing import Final, NamedTuple

from mesh.core.scaling.lag import WINDOW_MS, Backlog, BacklogSampler, GroupOffsets
from mesh.core.topology.model import AgentSpec

OVER_SAMPLES: Final = 3
"""Samples in a row that must agree before a worker is added."""
GROWTH_MAX: Final = 2
"""Largest factor by which the number of workers grows in one step."""
AT_ONCE_S: Final = 1.0
"""Time within which tasks are answered that count as work in progress, not as backlog."""
DRAIN_S_MAX: Final = 10.0
"""Time within which a backlog must be gone to need no further worker."""
CALM_SHARE: Final = 0.5
"""Share of a threshold below which one worker fewer is considered."""
LOAD_SHARE_MAX: Final = 0.8
"""Share of the remaining workers' capacity above which no worker is removed."""
HOT_PARTITION_SHARE: Final = 0.9
"""Share of a backlog in one partition from which more workers do not help: one worker at a time reads a partition."""
GAP_POLLS: Final = 3
"""Time without a sample, in units of `pollingInterval`, after which the counts in a row begin again."""
TRUST_MS: Final = 600_000
"""Time for which a measured capacity is trusted at first."""
TRUST_MS_MAX: Final = 7_200_000


@dataclass(frozen=True, slots=True)
class ScalingRule:
    """Options of the rule. Names as in a KEDA ScaledObject (minReplicaCount, lagThreshold, cooldownPeriod, …)."""

    workers_min: int = 1
    workers_max: int = 1
    lag_threshold: int | None = None
    """Tasks of one agent that may wait per worker; None: as many as a worker runs at once (`lanes`)."""
    age_threshold_ms: int | None = None
    """Age that the oldest task of an agent may reach; None: the time limit of one task (`timeout`)."""
    cooldown_ms: int = 30_000
    polling_ms: int = 1_000


class ScalingSample(NamedTuple):
    """Input of one decision. Times are those of any monotonic clock."""

    at_ms: float
    workers: int
    """Number of workers that there should be."""
    settled: bool
    """Whether exactly these workers are at work."""
    places: Mapping[str, Mapping[int, GroupOffsets]]
    """Agent → partition → offsets of its group."""
    stopped: frozenset[str] = frozenset()
    """Agents that an operator has stopped: their backlog has no influence."""


class Decision(NamedTuple):
    """Number of workers that there should be now, with the reason in a sentence."""

    workers: int
    why: str = ""
    """Reason for a change of the number; empty: no change."""
    limit: str = ""
    """Reason why there are not more workers although more are wanted; empty: there is none."""
    loads: Mapping[str, Backlog] = {}


@dataclass(slots=True)
class _Watched:
    """State of the rule for one agent."""

    lag_target: int
    age_target_ms: int
    backlog: BacklogSampler = field(default_factory=BacklogSampler)
    over: int = 0
    """Samples in a row in which the agent was over, by lag or by age."""
    over_by_lag: int = 0
    """Samples in a row in which too many tasks waited, whatever their age."""
    capacity: float = 0.0
    """Tasks per second that one worker can answer; 0: unknown."""
    learned_ms: float = 0.0
    trust_ms: float = TRUST_MS
    capacity_expired: bool = False
    arrived: int = 0
    """Sum of the ends of its partitions when the calm period began."""


class Scaler:
    """The rule with its memory. `decide` takes one sample after the other and only returns a decision."""

    def __init__(self, rule: ScalingRule, agents: Sequence[AgentSpec]) -> None:
        self.rule = rule
        self._watched = {
            spec.name: _Watched(rule.lag_threshold or spec.lanes, rule.age_threshold_ms or spec.timeout_ms)
            for spec in agents
        }
        self._workers = 0
        self._settled = False
        self._at_ms = 0.0
        self._calm_ms: float | None = None
        """Beginning of the calm period; None: some agent is not calm."""

    def decide(self, sample: ScalingSample) -> Decision:
        """Return the number of workers that there should be from this sample on."""
        restarted = not (self._settled and sample.settled and sample.workers == self._workers)
        if sample.at_ms - self._at_ms > max(WINDOW_MS, GAP_POLLS * self.rule.polling_ms):
            restarted = True  # a gap without samples counts neither as over nor as calm
            self._forget_run()
        self._workers, self._settled, self._at_ms = sample.workers, sample.settled, sample.at_ms
        loads = {
            name: self._watched[name].backlog.sample(sample.at_ms, places, restarted=restarted)
            for name, places in sample.places.items()
        }
        floor, ceiling = self._bounds(loads)
        if not floor <= sample.workers <= ceiling:
            within = min(max(sample.workers, floor), ceiling)
            return Decision(within, f"from {floor} to {ceiling} are allowed", loads=loads)
        live = {name: load for name, load in loads.items() if name not in sample.stopped}
        if not sample.settled:
            self._forget_run()
            return Decision(sample.workers, loads=loads)
        self._measure(sample, live)
        wanted, why, limit = self._scale_up(sample.workers, ceiling, live)
        if not why and not limit and sample.workers > floor and self._calm(sample, live):
            wanted, why = sample.workers - 1, self._why_fewer(sample, live)
        if wanted != sample.workers:
            self._forget_run()
        return Decision(wanted, why, limit, loads)

    def _bounds(self, loads: Mapping[str, Backlog]) -> tuple[int, int]:
        partitions = max((load.partitions for load in loads.values()), default=0)
        ceiling = min(self.rule.workers_max, partitions) if partitions else self.rule.workers_max
        return min(self.rule.workers_min, ceiling), ceiling

    def _forget_run(self) -> None:
        """Begin the counts in a row again, since the workers change."""
        self._calm_ms = None
        for watched in self._watched.values():
            watched.over = watched.over_by_lag = 0

    def _measure(self, sample: ScalingSample, live: Mapping[str, Backlog]) -> None:
        """Count crowded and over samples, and measure the capacity of a worker while there is enough work."""
        for name, watched in self._watched.items():
            load = live.get(name)
            if load is None:
                watched.over = watched.over_by_lag = 0
                continue
            over_by_lag = _is_over_by_lag(load, watched, sample.workers)
            old = load.age_ms > watched.age_target_ms and load.ages_ms[1] >= load.ages_ms[0]
            watched.over_by_lag = watched.over_by_lag + 1 if over_by_lag else 0
            watched.over = watched.over + 1 if (over_by_lag and not _shrinks_fast(load, watched, sample)) or old else 0
            each = load.answered / sample.workers if load.samples >= OVER_SAMPLES else 0.0
            if max(watched.over_by_lag, watched.over) >= OVER_SAMPLES and each > 0:
                if watched.capacity_expired:
                    watched.trust_ms, watched.capacity_expired = min(watched.trust_ms * 2, TRUST_MS_MAX), False
                watched.capacity, watched.learned_ms = each, sample.at_ms
            elif watched.capacity:
                watched.capacity = max(watched.capacity, each)
                if sample.at_ms - watched.learned_ms >= watched.trust_ms:
                    watched.capacity, watched.capacity_expired = 0.0, True

    # ------------------------------------------------------------------------------------------------------------ up

    def _scale_up(self, workers: int, ceiling: int, live: Mapping[str, Backlog]) -> tuple[int, str, str]:
        """Return the number of workers, the reason, and the reason why there are not more."""
        over = {name: load for name, load in live.items() if self._watched[name].over >= OVER_SAMPLES}
        if not over:
            return workers, "", ""
        spread = {name: load for name, load in over.items() if not _is_hot(load)}
        if not spread:
            name, load = next(iter(over.items()))
            share = f"{load.fullest_lag:,} of {_tasks(load.lag)} of {name}"
            return workers, "", f"{share} lie in partition {load.fullest}, which only one worker at a time can read"
        asked = {name: max(workers + 1, self._by_lag(name, load)) for name, load in spread.items()}
        name = max(asked, key=lambda each: asked[each])
        wanted = min(asked[name], workers * GROWTH_MAX, ceiling)
        limit = "" if wanted == min(asked[name], workers * GROWTH_MAX) else self._limit(ceiling)
        why = self._why_more(name, spread[name], workers)
        return (wanted, why, limit) if wanted > workers else (workers, "", f"{why}; {limit}")

    def _by_lag(self, name: str, load: Backlog) -> int:
        return ceil(load.lag / self._watched[name].lag_target)

    def _limit(self, ceiling: int) -> str:
        if ceiling < self.rule.workers_max:
            return f"more than {ceiling} would find no partition"
        return f"max={ceiling} allows no more"

    def _why_more(self, name: str, load: Backlog, workers: int) -> str:
        watched = self._watched[name]
        target = watched.lag_target * workers
        age = f"the oldest for {load.age_ms / 1_000:.1f} s"
        if load.lag > target:
            return f"{_tasks(load.lag)} of {name} {_wait(load.lag)} (threshold {target:,}), {age}"
        return f"{_tasks(load.lag)} of {name} {_wait(load.lag)}, {age} (threshold {watched.age_target_ms / 1_000:g} s)"

    # ---------------------------------------------------------------------------------------------------------- down

    def _calm(self, sample: ScalingSample, live: Mapping[str, Backlog]) -> bool:
        """Return whether all agents were calm for long enough, and one worker fewer can answer what arrives."""
        fewer = sample.workers - 1
        for name, load in live.items():
            watched = self._watched[name]
            quiet = load.lag <= max(watched.lag_target * fewer, load.answered * AT_ONCE_S) * CALM_SHARE
            if not quiet or load.age_ms > watched.age_target_ms * CALM_SHARE:
                self._calm_ms = None
                return False
        ends = {name: sum(place.end for place in places.values()) for name, places in sample.places.items()}
        since_ms = self._calm_ms
        if since_ms is not None and sample.at_ms - since_ms < self.rule.cooldown_ms:
            return False
        enough = since_ms is not None
        for name, watched in self._watched.items():
            end = ends.get(name, 0)
            if since_ms is not None and watched.capacity and name in live and sample.at_ms > since_ms:
                arriving = (end - watched.arrived) * 1_000 / (sample.at_ms - since_ms)
                enough = enough and arriving <= LOAD_SHARE_MAX * watched.capacity * fewer
            watched.arrived = end
        self._calm_ms = sample.at_ms
        return enough

    def _why_fewer(self, sample: ScalingSample, live: Mapping[str, Backlog]) -> str:
        waiting = sum(load.lag for load in live.values())
        rate = sum(load.arriving for load in live.values())
        lag = "nothing waits" if not waiting else f"only {_tasks(waiting)} {_wait(waiting)}"
        return f"{lag}, {rate:,.1f} a second come in; calm for {self.rule.cooldown_ms / 1_000:g} s"


def _is_over_by_lag(load: Backlog, watched: _Watched, workers: int) -> bool:
    """Return whether more tasks wait than these workers may have waiting."""
    return load.lag > max(watched.lag_target * workers, load.answered * AT_ONCE_S)


def _shrinks_fast(load: Backlog, watched: _Watched, sample: ScalingSample) -> bool:
    """Return whether the backlog shrinks fast enough."""
    excess = load.lag - watched.lag_target * sample.workers
    return load.samples >= OVER_SAMPLES and load.gaining > 0 and excess <= load.gaining * DRAIN_S_MAX


def _is_hot(load: Backlog) -> bool:
    return load.partitions > 1 and load.fullest_lag >= load.lag * HOT_PARTITION_SHARE


def _tasks(number: int) -> str:
    return f"{number:,} {'task' if number == 1 else 'tasks'}"


def _wait(number: int) -> str:
    return "waits" if number == 1 else "wait"
