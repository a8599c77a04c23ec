"""Spans that the sampler left out, kept for a while: they are exported when their run ends badly in this process."""

from collections import OrderedDict
from collections.abc import Callable
from typing import Final, TypeAlias

Export: TypeAlias = Callable[[str], None]
"""Exports one span that is over, with the reason why it is kept: `failed`, `refused` or `slow`."""
RUNS_BAD_MAX: Final = 1_024
"""Runs that ended badly and whose later spans are exported, too."""


class KeptSpans:
    """A ring buffer of at most `spans_max` spans, the oldest run first to go. `slow_ms`: longer is slow; 0: nothing is.

    A process knows only what it sees: a worker its own attempts, the orchestrator the outcomes. Spans of other
    processes are exported when those see a failure of the run themselves.
    """

    def __init__(self, spans_max: int, slow_ms: int) -> None:
        self.spans_max, self.slow_ms = spans_max, slow_ms
        self._runs: OrderedDict[str, list[Export]] = OrderedDict()
        self._count = 0
        self._bad: OrderedDict[str, str] = OrderedDict()

    def __len__(self) -> int:
        return self._count

    def add(self, run_id: str, export: Export) -> None:
        """Keep a span; export it at once if the run has ended badly before."""
        if reason := self._bad.get(run_id):
            export(reason)
            return
        self._runs.setdefault(run_id, []).append(export)
        self._count += 1
        while self._count > self.spans_max:
            _, oldest = self._runs.popitem(last=False)
            self._count -= len(oldest)

    def export(self, run_id: str, reason: str) -> None:
        """Export the spans of a run, and all later ones."""
        self._bad.setdefault(run_id, reason)
        if len(self._bad) > RUNS_BAD_MAX:
            self._bad.popitem(last=False)
        exports = self._runs.pop(run_id, [])
        self._count -= len(exports)
        for export in exports:
            export(reason)

    def forget(self, run_id: str) -> None:
        """Drop the spans of a run that ended well."""
        self._count -= len(self._runs.pop(run_id, ()))

    def is_slow(self, began_ns: int, ended_ns: int) -> bool:
        """Return whether a span took longer than `slow_ms`."""
        return 0 < self.slow_ms * 1_000_000 < ended_ns - began_ns
