"""Results of one agent's tasks in this process, counted."""

from dataclasses import dataclass, field, fields

from mesh.core.metrics.durations import Durations

NO_TASKS = frozenset(("usd_micros", "tokens", "work", "waiting"))
"""Fields that count no tasks."""


@dataclass(slots=True)
class Counts:
    """Counts of tasks. `timed_out` took too long, `failed` raised or returned an invalid result."""

    succeeded: int = 0
    failed: int = 0
    timed_out: int = 0
    expired: int = 0
    """Cancelled at the run's deadline, or not begun after it."""
    later: int = 0
    left_alone: int = 0
    """Not called because the agent's breaker is open."""
    rejected: int = 0
    crash_loop: int = 0
    """Not begun again because processes died of them."""
    undecodable: int = 0
    """Records that were no task of this agent."""
    abandoned: int = 0
    """Calls that did not end when they were cancelled."""
    late: int = 0
    """Abandoned calls that ended later; their answers were dropped."""
    cached: int = 0
    """Answered from the cache without a call."""
    uncached: int = 0
    """Called without the cache: the board was unavailable, or the answer too large."""
    deaths: int = 0
    """Partitions taken over from a worker that died."""
    usd_micros: int = 0
    tokens: int = 0
    """Money in millionths of a dollar, and tokens, that calls reported."""
    work: Durations = field(default_factory=Durations)
    """Times of attempts in the function."""
    waiting: Durations = field(default_factory=Durations)
    """Times from the record of a task to the begin of an attempt."""

    def shown(self) -> dict[str, int]:
        """Return the counts that are not 0, for the log."""
        found = {each.name: getattr(self, each.name) for each in fields(self) if each.name not in NO_TASKS}
        return {name: count for name, count in found.items() if count}

    def failure(self, kind: str) -> None:
        """Count one failure by its reason code."""
        match kind:
            case "timed_out":
                self.timed_out += 1
            case "expired":
                self.expired += 1
            case "later":
                self.later += 1
            case "left_alone":
                self.left_alone += 1
            case "rejected":
                self.rejected += 1
            case "crash_loop":
                self.crash_loop += 1
            case _:
                self.failed += 1
