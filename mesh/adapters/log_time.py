"""Log time, as one process knows it; and how far the clock of this machine is from it.

Decisions compare times of records, which the log stamps. So timers, deadlines and whatever else is compared with a
record follow the clock of the log: its last acknowledgement, and the time that has passed here since. The wall clock of
this machine decides nothing, may be wrong by any time and may be set while the process runs.
"""

import orjson

from mesh.adapters.diagnostics import diagnostics
from mesh.adapters.ports import Clock, Log, Refused
from mesh.core.protocol.event import rfc3339
from mesh.core.protocol.record import NewRecord
from mesh.core.topology.model import Topology

SKEW_MS_MAX = 2_000
"""A difference between this machine's clock and the log's is told from here on. A smaller one may be the network's."""
LOOK_EVERY_MS = 5_000
_log = diagnostics("clock")


class LogTime:
    """An estimate from acknowledgements. An append that was sent at one moment and is acknowledged at another was
    stamped between them: so the log's clock says now at least the stamp, and at most that plus the round trip."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._ahead_ms: float | None = None
        """Log time minus the uptime of this machine."""

    @property
    def known(self) -> bool:
        """Whether there was an acknowledgement."""
        return self._ahead_ms is not None

    def now_ms(self) -> int:
        """See `Log.now_ms`."""
        return self._clock.now_ms() if self._ahead_ms is None else int(self._clock.uptime_ms() + self._ahead_ms)

    def sent_ms(self) -> float:
        """To be kept when an append is sent, for `stamped`."""
        return self._clock.uptime_ms()

    def stamped(self, at_ms: int, sent_ms: float) -> None:
        """An append that was sent at `sent_ms` is acknowledged now, and was stamped with `at_ms`. The estimate follows
        the log's clock forward and back: what waits for a time counts its wait itself, and is not moved by that."""
        now_ms = self._clock.uptime_ms()
        least, most = at_ms - now_ms, at_ms - sent_ms
        self._ahead_ms = least if self._ahead_ms is None else min(max(self._ahead_ms, least), most)


async def ask_time(log: Log, topology: Topology) -> None:
    """Make sure that the log has told its time: append one record to mesh.clock, unless it has. A process needs this
    when it starts, since a log in which nothing happens tells nothing. Raises LogUnavailable."""
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
    """Says in one line that the clock of this machine and that of the log differ, and when that changes."""

    def __init__(self, log: Log, clock: Clock) -> None:
        self._source, self._clock = log, clock
        self._told_ms = 0

    async def run(self) -> None:
        """Look every few seconds, until cancelled."""
        while True:
            self.look()
            await self._clock.sleep_ms(LOOK_EVERY_MS)

    def look(self) -> None:
        """Look once."""
        if not self._source.knows_time:
            return
        ahead_ms = self._clock.now_ms() - self._source.now_ms()
        if abs(ahead_ms - self._told_ms) <= SKEW_MS_MAX:
            return
        if abs(ahead_ms) > SKEW_MS_MAX:
            self._told_ms = ahead_ms
            _log.warning(
                "this machine's clock differs from the log's; the mesh follows the log's, only times in logs differ",
                machine_ahead_s=round(ahead_ms / 1_000, 1),
                at_most_s=SKEW_MS_MAX / 1_000,
                fix="set the clock of whichever is wrong, for example by NTP",
            )
        else:
            self._told_ms = 0
            _log.info("this machine's clock agrees with the log's again", machine_ahead_s=round(ahead_ms / 1_000, 1))
