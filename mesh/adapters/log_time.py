"""Log time, as far as one process knows it, and its difference from the clock of this machine.

Decisions compare times of records, which the log stamps. So timers, deadlines and all other times that are compared
with a record follow the clock of the log: its last acknowledgement, plus the time that has passed here since. The wall
clock of this machine decides nothing. It may be wrong, and may be set while the process runs.
"""

import orjson

from mesh.adapters.diagnostics import diagnostics
from mesh.adapters.ports import Clock, Log, Refused
from mesh.core.protocol.event import rfc3339
from mesh.core.protocol.record import NewRecord
from mesh.core.topology.model import Topology

SKEW_MS_MAX = 2_000
"""Smallest difference of the two clocks that is reported. A smaller one may come from the network."""
LOOK_EVERY_MS = 5_000
_log = diagnostics("clock")


class LogTime:
    """An estimate of log time from acknowledgements.

    An append is stamped between its sending and its acknowledgement. So the log's clock shows at least the stamp now,
    and at most the stamp plus the round trip.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._ahead_ms: float | None = None
        """Log time minus the uptime of this machine."""

    @property
    def known(self) -> bool:
        """Whether an append was acknowledged."""
        return self._ahead_ms is not None

    def now_ms(self) -> int:
        """See `Log.now_ms`."""
        return self._clock.now_ms() if self._ahead_ms is None else int(self._clock.uptime_ms() + self._ahead_ms)

    def sent_ms(self) -> float:
        """Return the time at which an append is sent, as an argument for `stamped`."""
        return self._clock.uptime_ms()

    def stamped(self, at_ms: int, sent_ms: float) -> None:
        """Adjust the estimate: an append sent at `sent_ms` and stamped with `at_ms` is acknowledged now.

        The estimate follows the log's clock forward and back. Timers count their wait themselves and do not move.
        """
        now_ms = self._clock.uptime_ms()
        least, most = at_ms - now_ms, at_ms - sent_ms
        self._ahead_ms = least if self._ahead_ms is None else min(max(self._ahead_ms, least), most)


async def ask_time(log: Log, topology: Topology) -> None:
    """Append one record to mesh.clock, unless log time is known. Raises LogUnavailable.

    A starting process needs this, since an idle log acknowledges nothing.
    """
    if log.knows_time:
        return
    (verdict,) = await log.append([NewRecord(topology.clock, None, orjson.dumps({"asked": rfc3339(log.now_ms())}))])
    if isinstance(verdict, Refused):
        _log.warning(
            "the log's time is not known until a record is acknowledged; this machine's clock stands in for it",
            topic=topology.clock,
            code=verdict.code,
            reason=verdict.message,
            fix="`mesh topics create` makes the topic; this process needs the right to write to it",
        )


class SkewWatch:
    """A watch that logs when the clocks of this machine and of the log begin or cease to differ."""

    def __init__(self, log: Log, clock: Clock) -> None:
        self._time_log, self._clock = log, clock
        self._reported_ms = 0

    async def run(self) -> None:
        """Check every few seconds, until cancelled."""
        while True:
            self.look()
            await self._clock.sleep_ms(LOOK_EVERY_MS)

    def look(self) -> None:
        """Check once."""
        if not self._time_log.knows_time:
            return
        ahead_ms = self._clock.now_ms() - self._time_log.now_ms()
        if abs(ahead_ms - self._reported_ms) <= SKEW_MS_MAX:
            return
        if abs(ahead_ms) > SKEW_MS_MAX:
            self._reported_ms = ahead_ms
            _log.warning(
                "this machine's clock differs from the log's; the mesh follows the log's, only times in logs differ",
                machine_ahead_s=round(ahead_ms / 1_000, 1),
                at_most_s=SKEW_MS_MAX / 1_000,
                fix="set the clock of whichever is wrong, for example by NTP",
            )
        else:
            self._reported_ms = 0
            _log.info("this machine's clock agrees with the log's again", machine_ahead_s=round(ahead_ms / 1_000, 1))
