"""Which runs are wanted, and in which order."""

from collections.abc import Callable
from typing import Any, Final, NamedTuple

from mesh.core.history.run_summary import OPEN, Summary
from mesh.core.protocol.event import rfc3339
from mesh.core.run.state import ENDINGS
from mesh.core.text_glob import glob_test

PAUSED: Final = "paused"
ENDED: Final = "ended"
STATES: Final = (OPEN, PAUSED, ENDED, *ENDINGS)
SORTS: Final = ("started", "ended", "took", "tasks", "spent")


class RunQuery(NamedTuple):
    """A choice of runs. None and "": any. Times are log time in ms since the epoch."""

    state: str = ""
    """One of STATES."""
    type: str = ""
    subject: str = ""
    """A glob."""
    agent: str = ""
    code: str = ""
    since_ms: int | None = None
    until_ms: int | None = None
    slower_than_ms: int | None = None
    tasks_min: int | None = None
    usd_micros_min: int | None = None
    sort: str = SORTS[0]
    """One of SORTS; the newest, longest or largest first."""

    @property
    def endings(self) -> tuple[str, ...]:
        """The endings that a wanted run may have."""
        if self.state in (OPEN, PAUSED):
            return ()
        return (self.state,) if self.state in ENDINGS else tuple(ENDINGS)

    @property
    def takes_open(self) -> bool:
        """Whether a run that has not ended may be wanted."""
        return self.sort != ENDED and self.state in ("", OPEN, PAUSED)

    def test(self, now_ms: int) -> Callable[[Summary], bool]:
        """Return a function that tells whether a run is wanted at this present."""
        subject = glob_test(self.subject) if self.subject else None

        def fits(run: Summary) -> bool:
            return (
                self._state_fits(run)
                and (not self.type or run.type == self.type)
                and (subject is None or subject(run.subject))
                and (not self.agent or self.agent in run.agents)
                and (not self.code or self.code in run.codes)
                and (self.since_ms is None or run.opened_ms >= self.since_ms)
                and (self.until_ms is None or run.opened_ms < self.until_ms)
                and (self.slower_than_ms is None or duration_ms(run, now_ms) > self.slower_than_ms)
                and (self.tasks_min is None or run.tasks >= self.tasks_min)
                and (self.usd_micros_min is None or run.used.usd_micros >= self.usd_micros_min)
            )

        return fits

    def _state_fits(self, run: Summary) -> bool:
        if self.state == ENDED:
            return run.state != OPEN
        if self.state == PAUSED:
            return run.state == OPEN and run.paused
        return self.state in ("", run.state)

    def order(self, now_ms: int) -> Callable[[Summary], tuple[int, int, str]]:
        """Return the key by which runs are sorted, the first one smallest."""

        def key(run: Summary) -> tuple[int, int, str]:
            size = {
                "started": run.opened_ms,
                "ended": run.ended_ms or 0,
                "took": duration_ms(run, now_ms),
                "tasks": run.tasks,
                "spent": run.used.usd_micros,
            }[self.sort]
            return -size, -run.opened_ms, run.run_id

        return key


def duration_ms(run: Summary, now_ms: int) -> int:
    """Return how long a run took, or has taken until now."""
    return (now_ms if run.ended_ms is None else run.ended_ms) - run.opened_ms


def run_attributes(run: Summary) -> dict[str, Any]:
    """Return what a condition may name of a run besides the payload of its request."""
    return {
        "run": run.run_id,
        "type": run.type,
        "subject": run.subject,
        "state": PAUSED if run.paused else run.state,
        "opened": rfc3339(run.opened_ms),
        "ended": None if run.ended_ms is None else rfc3339(run.ended_ms),
        "took_ms": run.took_ms,
        "tasks": run.tasks,
        "agents": list(run.agents),
        "codes": list(run.codes),
        "usd": run.used.usd_micros / 1_000_000,
        "tokens": run.used.tokens,
        "refusals": list(run.refusals),
        "failures": list(run.failures),
        "starved": list(run.starved),
        "unrouted": list(run.unrouted),
        "overspent": list(run.overspent),
    }
