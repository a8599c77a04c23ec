"""The numbers of a mesh, each defined once. docs/reference/metrics.md shows the table."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, NamedTuple

from mesh.core.metrics.aggregate import Aggregate
from mesh.core.metrics.measurements import DRIFT_UNIT

MICROS: Final = 1_000_000
SHARE: Final = "share"
"""Unit of numbers from 0 to 1. People see and write percent."""
MS: Final = "ms"


class Measured(NamedTuple):
    """What a number is computed from: the aggregates of a scope and of the whole mesh, over the same time."""

    own: Aggregate
    mesh: Aggregate
    length_ms: int


class Definition(NamedTuple):
    """One number. `compute` returns None where the span has no value for it."""

    meaning: str
    formula: str
    unit: str
    source: str
    healthy: str
    compute: Callable[[Measured], float | None]

    def samples(self, span: Measured) -> int | None:
        """Return how many values the number of this span rests on; None for counts, sums and largest values."""
        compute = self.compute
        if isinstance(compute, _Share | _PerCompletedRun) or (isinstance(compute, _Quantile) and compute.share < 1):
            return compute.samples(span)
        return span.own.counts.get("answers", 0) if compute is _overhead else None


def _per_second(name: str) -> Callable[[Measured], float | None]:
    return lambda span: span.own.counts.get(name, 0) * 1_000 / span.length_ms


def _count(name: str) -> Callable[[Measured], float | None]:
    return lambda span: span.own.counts.get(name, 0)


@dataclass(frozen=True, slots=True)
class _Share:
    """A count by another one, both of the scope."""

    part: str
    whole: str
    less: str = ""
    """A count that the whole goes without."""

    def samples(self, span: Measured) -> int:
        counts = span.own.counts
        return counts.get(self.whole, 0) - (counts.get(self.less, 0) if self.less else 0)

    def __call__(self, span: Measured) -> float | None:
        total = self.samples(span)
        return span.own.counts.get(self.part, 0) / total if total else None


@dataclass(frozen=True, slots=True)
class _Quantile:
    """A quantile of the values of a scope."""

    name: str
    share: float
    unit: int = 1

    def samples(self, span: Measured) -> int:
        histogram = span.own.histograms.get(self.name)
        return 0 if histogram is None else histogram.count

    def __call__(self, span: Measured) -> float | None:
        value = span.own.quantile(self.name, self.share)
        return None if value is None else value / self.unit


@dataclass(frozen=True, slots=True)
class _PerCompletedRun:
    """A sum of the scope by the completed runs of the mesh."""

    name: str
    unit: int = 1

    def samples(self, span: Measured) -> int:
        return span.mesh.counts.get("ending:completed", 0)

    def __call__(self, span: Measured) -> float | None:
        completed = self.samples(span)
        return span.own.counts.get(self.name, 0) / self.unit / completed if completed else None


def _overhead(span: Measured) -> float | None:
    elapsed_ms = span.own.counts.get("elapsed_ms", 0)
    return max(0, elapsed_ms - span.own.counts.get("critical_ms", 0)) / elapsed_ms if elapsed_ms else None


def _usd(span: Measured) -> float | None:
    return span.own.counts.get("usd_micros", 0) / MICROS


_ANSWERS = "`mesh.inbox`: `succeeded`, `failed`"
_OUTCOMES = "`mesh.outcomes`"
_ATTEMPT = "log time of the answer − log time of its task"
_WAITED = "`mesh-waited-ms` of the answer, which is 0 below 100 ms"
DEFINITIONS: Final[dict[str, Definition]] = {
    "rate_in": Definition(
        "requests of the mesh", "requests ÷ time", "1/s", "`mesh.inbox`: `requested`", "", _per_second("requests")
    ),
    "rate": Definition("answers of agents", "answers ÷ time", "1/s", _ANSWERS, "", _per_second("answers")),
    "rate_out": Definition(
        "events that agents emitted", "events in answers ÷ time", "1/s", _ANSWERS, "", _per_second("emitted")
    ),
    "error_rate": Definition(
        "attempts in which the agent failed",
        "failed ÷ answers, both without `later`, `left_alone` and `expired`",
        SHARE,
        _ANSWERS,
        "< 5 %",
        _Share("errors", "answers", "untried"),
    ),
    "retry_rate": Definition(
        "attempts after the first",
        "answers of attempt 2 and later ÷ answers",
        SHARE,
        _ANSWERS,
        "< 10 %",
        _Share("retries", "answers"),
    ),
    "timeout_rate": Definition(
        "attempts that took too long",
        "failures with code `timed_out` ÷ answers",
        SHARE,
        _ANSWERS,
        "< 1 %",
        _Share("timeouts", "answers"),
    ),
    "fallback_rate": Definition(
        "answers of a fallback",
        "answers of an agent in the place of one that failed ÷ answers",
        SHARE,
        _ANSWERS,
        "< 5 %",
        _Share("fallbacks", "answers"),
    ),
    "completion_rate": Definition(
        "runs that completed",
        "outcomes `completed` ÷ outcomes",
        SHARE,
        _OUTCOMES,
        "> 95 %",
        _Share("ending:completed", "ended"),
    ),
    "cycle_rate": Definition(
        "runs in which a loop was refused",
        "outcomes with a refusal `cycle` or `visits` ÷ outcomes",
        SHARE,
        _OUTCOMES,
        "< 1 %",
        _Share("cyclic_runs", "ended"),
    ),
    "cascade_depth": Definition(
        "agents that failed one after another at one place of a path",
        "largest number, the agent itself and those that it replaces",
        "agents",
        _ANSWERS,
        "≤ 1",
        _Quantile("cascade", 1.0),
    ),
    "overhead": Definition(
        "time of runs that no agent on the critical path needed",
        "(time of the run − critical path) ÷ time of the run; up to its last answer. The critical path is the longest"
        " work along one path: work of an answer + that of its path without the last agent",
        SHARE,
        _ANSWERS,
        "< 20 %",
        _overhead,
    ),
    "decision_p95": Definition(
        "time from the event that ended a run to its outcome, as stored",
        "95th percentile of log time of the outcome − `ended`",
        MS,
        _OUTCOMES,
        "< 100 ms",
        _Quantile("decision_ms", 0.95),
    ),
    "context_drift": Definition(
        "distance of the words that agents emit from those of the request",
        "median of the cosine distance of hashed n-gram vectors (see `mesh/core/metrics/context_drift.py`)",
        "0 to 1",
        _ANSWERS,
        "compare with the usual value of the agent",
        _Quantile("drift", 0.5, DRIFT_UNIT),
    ),
    "p50": Definition(
        "work of an attempt", f"median of {_ATTEMPT} − waiting", MS, _ANSWERS, "", _Quantile("work_ms", 0.5)
    ),
    "p95": Definition(
        "work of an attempt",
        f"95th percentile of {_ATTEMPT} − waiting",
        MS,
        _ANSWERS,
        "< half of the agent's `timeout`",
        _Quantile("work_ms", 0.95),
    ),
    "p99": Definition(
        "work of an attempt", f"99th percentile of {_ATTEMPT} − waiting", MS, _ANSWERS, "", _Quantile("work_ms", 0.99)
    ),
    "waiting_p50": Definition(
        "waiting of an attempt", f"median of {_WAITED}", MS, _ANSWERS, "", _Quantile("waiting_ms", 0.5)
    ),
    "waiting_p95": Definition(
        "waiting of an attempt",
        f"95th percentile of {_WAITED}",
        MS,
        _ANSWERS,
        "below the work",
        _Quantile("waiting_ms", 0.95),
    ),
    "waiting_p99": Definition(
        "waiting of an attempt", f"99th percentile of {_WAITED}", MS, _ANSWERS, "", _Quantile("waiting_ms", 0.99)
    ),
    "run_p50": Definition("time of a run", "median of `took_ms`", MS, _OUTCOMES, "", _Quantile("run_ms", 0.5)),
    "run_p95": Definition(
        "time of a run", "95th percentile of `took_ms`", MS, _OUTCOMES, "", _Quantile("run_ms", 0.95)
    ),
    "tokens": Definition("tokens that attempts reported", "sum", "tokens", _ANSWERS, "", _count("tokens")),
    "usd": Definition("money that attempts reported", "sum", "USD", _ANSWERS, "", _usd),
    "tokens_per_run": Definition(
        "tokens for one completed run; of an agent: its part, which is what it added",
        "tokens ÷ outcomes `completed`",
        "tokens",
        f"{_ANSWERS}; {_OUTCOMES}",
        "",
        _PerCompletedRun("tokens"),
    ),
    "usd_per_run": Definition(
        "money for one completed run; of an agent: its part, which is what it added",
        "money ÷ outcomes `completed`",
        "USD",
        f"{_ANSWERS}; {_OUTCOMES}",
        "",
        _PerCompletedRun("usd_micros", MICROS),
    ),
    "dead_letters": Definition("dead letters", "records", "records", "`mesh.dead`", "0", _count("dead")),
    "refusals": Definition(
        "refused hops, results and requests of runs that ended",
        "sum of `refusals`",
        "refusals",
        _OUTCOMES,
        "0",
        _count("refusals"),
    ),
    "overrides": Definition(
        "commands by which operators overrode the mesh",
        "`cancelled`, `paused`, `resumed` and `redriven`",
        "commands",
        "`mesh.inbox`",
        "",
        _count("overrides"),
    ),
}
"""Name → definition. A number of an agent or a type has the same name as that of the mesh."""


def numbers(span: Measured) -> dict[str, float | None]:
    """Compute every number of a span."""
    return {name: definition.compute(span) for name, definition in DEFINITIONS.items()}
