"""`mesh up worker --autoscale min=1,max=8`: scales the number of worker processes with the backlog.

Names are those of a KEDA ScaledObject, so that values that were tried here can be used there.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Final

from mesh.cli.framework.logs import Reporter
from mesh.cli.framework.session import Session
from mesh.cli.framework.signals import Stop
from mesh.cli.framework.text import counted, relocated
from mesh.core.errors import InvalidInput, MeshError, leaf_errors
from mesh.core.scaling.policy import Decision, Scaler, ScalingRule, ScalingSample
from mesh.core.suggest import did_you_mean
from mesh.core.topology.model import Topology
from mesh.core.topology.units import duration_ms, whole

if TYPE_CHECKING:
    from mesh.services.autoscaler import Workers

OPTION: Final = "--autoscale"
WORKERS_MAX: Final = 256
POLLING_MS_MIN: Final = 50
BACKOFF_S_MAX: Final = 5.0
LIMIT_REPORT_EVERY_MS: Final = 60_000.0
EXAMPLE: Final = "min=1,max=8"

_READERS: Final[Mapping[str, tuple[str, Callable[[str], int]]]] = {
    "min": ("workers_min", whole(1, WORKERS_MAX)),
    "max": ("workers_max", whole(1, WORKERS_MAX)),
    "lagThreshold": ("lag_threshold", whole(1, 1_000_000_000)),
    "ageThreshold": ("age_threshold_ms", duration_ms),
    "cooldownPeriod": ("cooldown_ms", duration_ms),
    "pollingInterval": ("polling_ms", duration_ms),
}


def parse_rule(text: str) -> ScalingRule:
    """Read `min=1,max=8,lagThreshold=50,ageThreshold=5s,cooldownPeriod=30s,pollingInterval=1s`; only max is required.

    Raises InvalidInput that names the invalid part and the expected form.
    """
    values: dict[str, int] = {}
    for part in text.split(","):
        name, equals, value = (piece.strip() for piece in part.partition("="))
        known = _READERS.get(name)
        if known is None:
            remedy = did_you_mean(name, _READERS, f"Write {OPTION} {EXAMPLE}")
            raise _invalid(f"unknown part {name!r}" if name else "a part is empty", text, remedy)
        if not equals or not value:
            raise _invalid(f"{name} has no value", text, f"Write {OPTION} {EXAMPLE}")
        field, read = known
        if field in values:
            raise _invalid(f"{name} is given twice", text, f"Leave one {name} out")
        try:
            values[field] = read(value)
        except InvalidInput as error:
            raise relocated(error, f"{OPTION} {name}", "usage") from error
    return _validate(values, text)


def check_partitions(rule: ScalingRule, topology: Topology) -> None:
    """Raise InvalidInput if the least number of workers exceeds the number of task partitions."""
    partitions = topology.inbox_partitions
    if rule.workers_min > partitions:
        raise InvalidInput(
            f"the task topics have {counted(partitions, 'partition')}, and a worker without one has nothing to do",
            code="usage",
            where=f"{OPTION} min",
            expected=f"a whole number from 1 to {partitions}",
            got=f"{rule.workers_min}",
            remedy=f"Write min={partitions} or less; more lanes are more at once in each worker",
        )


def _validate(values: Mapping[str, int], text: str) -> ScalingRule:
    if "workers_max" not in values:
        raise _invalid("max is missing", text, f"Write {OPTION} {EXAMPLE}")
    rule = ScalingRule(**values)
    if rule.workers_max < rule.workers_min:
        raise _invalid("max is less than min", text, f"Write max={rule.workers_min} or more")
    if rule.polling_ms < POLLING_MS_MIN:
        raise _invalid("pollingInterval is too short", text, f"Write pollingInterval={POLLING_MS_MIN}ms or more")
    if rule.age_threshold_ms == 0:
        raise _invalid("ageThreshold is zero", text, "Write ageThreshold=1s or more, or leave it out")
    if rule.cooldown_ms < rule.polling_ms:
        raise _invalid(
            "cooldownPeriod is shorter than pollingInterval", text, f"Write cooldownPeriod={rule.polling_ms}ms or more"
        )
    return rule


def _invalid(what: str, text: str, remedy: str) -> InvalidInput:
    expected = f"{EXAMPLE} and optionally lagThreshold=N, ageThreshold=5s, cooldownPeriod=30s, pollingInterval=1s"
    return InvalidInput(what, code="usage", where=OPTION, expected=expected, got=repr(text), remedy=remedy)


class Autoscaling:
    """Watches the backlog of `agents`, scales `workers`, and reports it."""

    def __init__(
        self, session: Session, reporter: Reporter, rule: ScalingRule, agents: Iterable[str], workers: "Workers"
    ) -> None:
        self._session, self._reporter, self._rule, self._workers = session, reporter, rule, workers
        self._agents = tuple(agents)
        self._scaler = Scaler(rule, [session.topology.agents[name] for name in self._agents])
        self._limited = False
        self._reported_ms = -LIMIT_REPORT_EVERY_MS

    async def run(self, stop: Stop) -> None:
        """Run until the signal. While the log is unreachable, the number of workers stays. Raises permanent errors."""
        from mesh.adapters.telemetry import BacklogMeter, configure_metrics

        provider = configure_metrics("mesh-autoscaler")
        meter = None if provider is None else BacklogMeter(provider, self._session.topology)
        try:
            await self._retry_while_unreachable(stop, meter.record if meter else _no_metrics)
        finally:
            if meter is not None:
                await asyncio.to_thread(meter.close)

    async def _retry_while_unreachable(self, stop: Stop, measure: Callable[[ScalingSample, Decision], None]) -> None:
        from mesh.adapters.clock import SystemClock
        from mesh.services.autoscaler import Autoscaler

        backoff_s = 1.0

        def handle(sample: ScalingSample, decision: Decision) -> None:
            nonlocal backoff_s
            backoff_s = 1.0
            measure(sample, decision)
            self._report(sample, decision)

        while not stop.event.is_set():
            try:
                async with self._session.log() as log:
                    topology = self._session.topology
                    scaler = Autoscaler(log, topology, self._agents, self._scaler, SystemClock(), self._workers, handle)
                    await scaler.run(stop.event)
            except (MeshError, BaseExceptionGroup) as error:
                found = leaf_errors(error)
                if not all(isinstance(leaf, MeshError) and leaf.retriable for leaf in found):
                    raise
                many = counted(self._workers.number, "worker")
                self._reporter.warning(f"the backlog cannot be seen, so it stays at {many}: {found[0]}")
                await stop.within(backoff_s)
                backoff_s = min(BACKOFF_S_MAX, backoff_s * 2)

    def _report(self, sample: ScalingSample, decision: Decision) -> None:
        if decision.why:
            self._report_change(sample, decision)
        began, self._limited = bool(decision.limit) and not self._limited, bool(decision.limit)
        if began and sample.at_ms - self._reported_ms >= LIMIT_REPORT_EVERY_MS:
            self._reported_ms = sample.at_ms
            self._reporter.info(f"more workers are wanted: {decision.limit}", workers=decision.workers)

    def _report_change(self, sample: ScalingSample, decision: Decision) -> None:
        before, after = sample.workers, decision.workers
        way = "up" if after > before else "down"
        lags = {name: load.lag for name, load in decision.loads.items()}
        text = f"scaled {way} from {before} to {counted(after, 'worker')}: {decision.why}"
        self._reporter.info(text, workers=after, before=before, lag=sum(lags.values()))
        self._session.output.emit(
            {"event": "scaled", "from": before, "workers": after, "why": decision.why, "lag": lags}
        )


def _no_metrics(sample: ScalingSample, decision: Decision) -> None:
    """Replaces the meter where no metrics are exported."""
