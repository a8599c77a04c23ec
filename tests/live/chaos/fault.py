"""Faults: each has a name, a load, an act and criteria. The tables are in faults_*.py."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from tests.live.chaos.field import Field


class Scale(NamedTuple):
    """The size of a test. `ci` is small, `full` is that of `make chaos`."""

    name: str
    session_ms: int
    rate: float
    """Trees asked a second while a fault acts; ten tasks each."""
    trees_min: int
    """Asked at least, in faults that have a load."""
    restart_s_max: float
    tail_ms: int
    gap_s: float
    """Longest pause between two kills; the shortest is a third of it."""
    kills: float
    """Part of the kills of a full-scale fault; never less than one."""
    second_ms: int
    """Milliseconds of second attempts in F25; meanwhile the whole inbox is read more than once."""

    def times(self, full: int, least: int = 1) -> int:
        """Return the number of times, where it is `full` at full scale."""
        return max(least, round(full * self.kills))


CI = Scale("ci", 4_000, 6.0, 12, 0.5, 500, 1.0, 0.04, 1_000)
FULL = Scale("full", 6_000, 8.0, 2_000, 3.0, 2_000, 15.0, 1.0, 10_000)
SCALES = {scale.name: scale for scale in (CI, FULL)}


@dataclass
class Phase:
    """One fault while it acts: what it did and what it saw."""

    name: str
    kills: int = 0
    facts: dict[str, Any] = field(default_factory=dict)
    """Measurements of the act, for criteria and the report."""


@dataclass
class Figures:
    """The figures of a fault at its end. `judged` is the checker's result, by phase (`F35`, `F35!bomb`, …)."""

    phase: Phase
    scale: Scale
    latencies: list[float]
    judged: dict[str, dict[str, Any]]

    @property
    def kills(self) -> int:
        """Return the number of kills and stops."""
        return self.phase.kills

    @property
    def facts(self) -> dict[str, Any]:
        """Return the measurements of the act."""
        return self.phase.facts

    @property
    def session_s(self) -> float:
        """Session timeout of the groups."""
        return self.scale.session_ms / 1000

    def of(self, name: str) -> Any:
        """A figure of the trees of this fault."""
        return self.judged.get(self.phase.name, {}).get(name, 0)

    def odd(self, how: str) -> list[dict[str, Any]]:
        """Outcomes of the runs of this fault that were asked to do `how`."""
        found: list[dict[str, Any]] = self.judged.get(f"{self.phase.name}!{how}", {}).get("runs", [])
        return found

    def notes(self, how: str) -> list[str]:
        """Return the notes of the agents in these runs."""
        found: list[str] = self.judged.get(f"{self.phase.name}!{how}", {}).get("notes", [])
        return found

    def all_notes(self) -> dict[str, list[str]]:
        """Return the notes of the agents in all odd runs of this fault, by the requested behaviour; each note once."""
        return {name: sorted(set(figures["notes"])) for name, figures in self.judged.items() if figures.get("notes")}

    def total(self, name: str) -> int:
        """A number over all runs of this fault."""
        return sum(figures[name] for figures in self.judged.values())

    def late_s(self, part: float) -> float:
        """Latency below which that part of the trees lies; 0 without trees."""
        return self.latencies[min(len(self.latencies) - 1, int(len(self.latencies) * part))] if self.latencies else 0.0


class Criterion(NamedTuple):
    """A sentence and whether it holds."""

    text: str
    holds: Callable[[Figures], bool]


class Fault(NamedTuple):
    """One row of the table. `load`: whether trees are asked for while it acts."""

    id: str
    title: str
    act: "Callable[[Field, Phase], Awaitable[None]]"
    criteria: tuple[Criterion, ...] = ()
    load: bool = True


ALWAYS: tuple[Criterion, ...] = (
    Criterion("nothing acknowledged is lost", lambda f: f.total("lost") == 0),
    Criterion("nothing ended twice", lambda f: f.total("ended_twice") == 0),
    Criterion("nothing ended without a reason", lambda f: f.total("unexplained") == 0),
)
