"""How many worker processes does the backlog want? One rule, for `mesh up worker --autoscale`.

    up      For three samples in a row some agent is *over*: more tasks wait than `lagThreshold` for each worker, more
            than are answered in a second, and the backlog is not about to be gone; or the oldest task is older than
            `ageThreshold` and no longer getting younger. Then as many as the lag asks for (lag / lagThreshold, as
            KEDA's scaler has it), at least one more, at most twice as many.
    down    For a whole `cooldownPeriod` every agent was *calm*: so little waits that one worker fewer would not come
            near its threshold; and what came in meanwhile is no more than one worker fewer has been seen to do. Then
            one worker fewer.
    never   beyond min and max, nor above the number of partitions: a worker without a partition has nothing to do.

Between *over* and *calm* lies a wide band in which nothing happens, and what a worker can do is measured while there is
more than enough to do: so steady input comes to rest, instead of going up with the lag and down with its absence. What
was measured is believed for ten minutes; then one worker fewer is tried, and each time that was wrong it is believed
twice as long, at most two hours.

A growth is judged by what all workers did since the last change, not before.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil
from typing import Final, NamedTuple

from mesh.core.scaling.lag import WINDOW_MS, Backlog, BacklogSampler, GroupOffsets
from mesh.core.topology.model import AgentSpec

OVER_SAMPLES: Final = 3
"""So many samples in a row must say the same before a worker is added."""
GROWTH_MAX: Final = 2
"""At most so many times as many workers in one step."""
AT_ONCE_S: Final = 1.0
"""What is answered within this time is work on its way, and no backlog."""
RELIEF_S: Final = 10.0
"""A backlog that will be gone within this time needs nobody more."""
CALM_SHARE: Final = 0.5
"""Of a threshold: below, one worker fewer is thought of."""
LOAD_SHARE_MAX: Final = 0.8
"""Of what the remaining workers can do: above, nobody is taken away."""
HOT_SHARE: Final = 0.9
"""Of a backlog: with more of it in one partition, which one worker at a time can read, more workers are no help."""
GAP_POLLS: Final = 3
"""After so many times `pollingInterval` without a sample what was counted in a row begins anew."""
TRUST_MS: Final = 600_000
TRUST_MS_MAX: Final = 7_200_000


@dataclass(frozen=True, slots=True)
class ScalingRule:
    """What may be set. Names as in a KEDA ScaledObject (minReplicaCount, lagThreshold, cooldownPeriod, …)."""

    workers_min: int = 1
    workers_max: int = 1
    lag_threshold: int | None = None
    """Tasks of one agent that may wait for each worker; None: as many as a worker begins at once (`lanes`)."""
    age_threshold_ms: int | None = None
    """Age of the oldest task of an agent; None: as long as one task may take (`timeout`)."""
    cooldown_ms: int = 30_000
    polling_ms: int = 1_000


class ScalingSample(NamedTuple):
    """What is known at one moment. Times of any steady clock, rising."""

    at_ms: float
    workers: int
    """So many there should be."""
    settled: bool
    """All of them are at work, and nobody else."""
    places: Mapping[str, Mapping[int, GroupOffsets]]
    """Agent → partition → place of its group."""
    stopped: frozenset[str] = frozenset()
    """Agents that somebody has stopped: what waits for them is no reason for anything."""


class Decision(NamedTuple):
    """So many workers there should be now, and why in a sentence."""

    workers: int
    why: str = ""
    """Why they are other than before; empty: they are not."""
    limit: str = ""
    """What stands in the way of more, where more are wanted; empty: nothing does."""
    loads: Mapping[str, Backlog] = {}


@dataclass(slots=True)
class _Watched:
    """One agent, and what was learned about it."""

    lag_target: int
    age_target_ms: int
    backlog: BacklogSampler = field(default_factory=BacklogSampler)
    over: int = 0
    """Samples in a row."""
    crowded: int = 0
    """Of them, in how many there was too much rather than something too old."""
    capacity: float = 0.0
    """Tasks a second that one worker can do; 0: not known."""
    learned_ms: float = 0.0
    trust_ms: float = TRUST_MS
    forgot: bool = False
    arrived: int = 0
    """Ends of its partitions when it was calm first."""


class Scaler:
    """The rule with its memory. `decide` is told one sample after the other and does nothing itself."""

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
        """Since when nobody has waited."""

    def decide(self, sample: ScalingSample) -> Decision:
        """How many there should be from this sample on."""
        anew = not (self._settled and sample.settled and sample.workers == self._workers)
        if sample.at_ms - self._at_ms > max(WINDOW_MS, GAP_POLLS * self.rule.polling_ms):
            anew = True  # nobody looked for a while, and what is not seen is neither over nor calm
            self._forget_run()
        self._workers, self._settled, self._at_ms = sample.workers, sample.settled, sample.at_ms
        loads = {
            name: self._watched[name].backlog.sample(sample.at_ms, places, anew=anew)
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
        self._learn(sample, live)
        wanted, why, limit = self._more(sample.workers, ceiling, live)
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
        """Something changes: what was counted in a row begins anew."""
        self._calm_ms = None
        for watched in self._watched.values():
            watched.over = watched.crowded = 0

    def _learn(self, sample: ScalingSample, live: Mapping[str, Backlog]) -> None:
        """How much one worker can do: known while there is more than enough to do."""
        for name, watched in self._watched.items():
            load = live.get(name)
            if load is None:
                watched.over = watched.crowded = 0
                continue
            crowded = _crowded(load, watched, sample.workers)
            old = load.age_ms > watched.age_target_ms and load.ages_ms[1] >= load.ages_ms[0]
            watched.crowded = watched.crowded + 1 if crowded else 0
            watched.over = watched.over + 1 if (crowded and not _relieved(load, watched, sample)) or old else 0
            each = load.answered / sample.workers if load.samples >= OVER_SAMPLES else 0.0
            if max(watched.crowded, watched.over) >= OVER_SAMPLES and each > 0:
                if watched.forgot:
                    watched.trust_ms, watched.forgot = min(watched.trust_ms * 2, TRUST_MS_MAX), False
                watched.capacity, watched.learned_ms = each, sample.at_ms
            elif watched.capacity:
                watched.capacity = max(watched.capacity, each)
                if sample.at_ms - watched.learned_ms >= watched.trust_ms:
                    watched.capacity, watched.forgot = 0.0, True

    # ------------------------------------------------------------------------------------------------------------ up

    def _more(self, workers: int, ceiling: int, live: Mapping[str, Backlog]) -> tuple[int, str, str]:
        """So many; why; what stands in the way of more."""
        over = {name: load for name, load in live.items() if self._watched[name].over >= OVER_SAMPLES}
        if not over:
            return workers, "", ""
        spread = {name: load for name, load in over.items() if not _hot(load)}
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
        """Whether it has been calm for long enough, and one worker fewer can do what comes."""
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


def _crowded(load: Backlog, watched: _Watched, workers: int) -> bool:
    """More waits than these workers should have lying there."""
    return load.lag > max(watched.lag_target * workers, load.answered * AT_ONCE_S)


def _relieved(load: Backlog, watched: _Watched, sample: ScalingSample) -> bool:
    """The backlog shrinks, and soon enough."""
    excess = load.lag - watched.lag_target * sample.workers
    return load.samples >= OVER_SAMPLES and load.gaining > 0 and excess <= load.gaining * RELIEF_S


def _hot(load: Backlog) -> bool:
    return load.partitions > 1 and load.fullest_lag >= load.lag * HOT_SHARE


def _tasks(number: int) -> str:
    return f"{number:,} {'task' if number == 1 else 'tasks'}"


def _wait(number: int) -> str:
    return "waits" if number == 1 else "wait"
