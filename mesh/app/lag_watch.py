"""The lag of all consumer groups, read now and then beside the work, so that a scrape only prints it."""

from collections.abc import Iterator, Sequence
from typing import Final

from mesh.adapters.diagnostics import diagnostics
from mesh.adapters.ports import Clock, ReadLog
from mesh.core.errors import MeshError
from mesh.core.metrics.instruments import MetricSample
from mesh.core.scaling.lag import GroupLag
from mesh.core.topology.model import Topology
from mesh.runtime.lag import group_lags

EVERY_MS: Final = 10_000
_log = diagnostics("lag")


class LagWatch:
    """The last lag that was read; nothing while the log does not answer."""

    def __init__(self, log: ReadLog, topology: Topology, clock: Clock) -> None:
        self._log, self._topology, self._clock = log, topology, clock
        self.lags: Sequence[GroupLag] = ()

    async def run(self) -> None:
        """Read every ten seconds until cancelled."""
        while True:
            await self.read()
            await self._clock.sleep_ms(EVERY_MS)

    async def read(self) -> None:
        """Read once. An error of the log is logged, and no lag is known then: an old one would mislead."""
        try:
            self.lags = await group_lags(self._log, self._topology)
        except MeshError as error:
            self.lags = ()
            _log.warning("the lag could not be read", reason=str(error))

    def samples(self) -> Iterator[MetricSample]:
        """Yield the lag of each group in each partition, and the age of its oldest record in each topic."""
        for lag in self.lags:
            group = self._topology.group(lag.consumer)
            for number, records in lag.partitions.items():
                yield MetricSample("mesh_consumer_lag_records", (group, lag.topic, str(number)), records)
            if lag.age_ms is not None:
                yield MetricSample("mesh_oldest_unread_age_seconds", (group, lag.topic), lag.age_ms / 1_000)
