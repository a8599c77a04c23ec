"""What one agent's tasks came to in this process."""

from dataclasses import asdict, dataclass


@dataclass(slots=True)
class Counts:
    """Slow is told from wrong: `timed_out` took too long, `failed` raised or answered what is no answer."""

    succeeded: int = 0
    failed: int = 0
    timed_out: int = 0
    expired: int = 0
    """Cut short by the run's deadline, or past it when their turn came."""
    later: int = 0
    left_alone: int = 0
    """Not called, since the agent's breaker is open."""
    rejected: int = 0
    crash_loop: int = 0
    """Not begun again, since process after process died at them."""
    misfits: int = 0
    """Records that were no task of this agent."""
    abandoned: int = 0
    """Functions that did not end when they were cancelled."""
    late: int = 0
    """Abandoned ones that ended after all; nobody heard their answer."""
    cached: int = 0
    """Answered from the cache, without a call of the function."""
    uncached: int = 0
    """Called without the cache, since the board was gone or the answer too large for it."""
    deaths: int = 0
    """Partitions taken over from a worker that died."""

    def shown(self) -> dict[str, int]:
        """Those that are not 0, for the log."""
        return {name: count for name, count in asdict(self).items() if count}

    def failure(self, kind: str) -> None:
        """One more failure, by its reason code."""
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
