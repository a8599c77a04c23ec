"""Endings of runs in few words: as recorded and under another topology. Groups of runs that end differently."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from mesh.core.run.dead_letter import redriven_refusals
from mesh.core.run.state import Run

OPEN: Final = "open"
UNKNOWN: Final = "unknown"
"""Ending of a run that waits for an answer that was never recorded."""
EXAMPLES_MAX: Final = 5
"""Runs named in a group."""
GROUPS_MAX: Final = 1_000
"""Groups kept; further ones are counted together."""


class Ending(NamedTuple):
    """The ending of a run. `reasons`: why it did not complete, such as `depth of pricing`."""

    ending: str
    tasks: int
    usd_micros: int
    tokens: int
    results: int
    refused: int
    reasons: tuple[str, ...]

    @property
    def visible(self) -> tuple[object, ...]:
        """Return the visible part of an outcome: two endings are the same if it is."""
        return self.ending, self.results, self.refused, self.reasons


class RunWhatIf(NamedTuple):
    """One run as recorded and under the other topology."""

    run_id: str
    before: Ending | None
    """None: its outcome is not in the recording."""
    after: Ending
    """Its ending may be `unknown`: then the numbers are those up to there."""
    asked: tuple[str, ...] = ()
    """Agents whose answer was never recorded."""

    @property
    def differs(self) -> bool:
        """Whether the run ends differently. A run that was open is not compared."""
        return self.before is not None and self.before.visible != self.after.visible

    @property
    def reason(self) -> str:
        """Return why it ends differently, in a few words that are equal for similar runs."""
        if self.asked:
            return f"unknown from here: no recorded answer of {', '.join(sorted(set(self.asked)))}"
        known = () if self.before is None else self.before.reasons
        new = [f"{text} (new)" for text in self.after.reasons if text not in known]
        gone = [f"{text} (gone)" for text in known if text not in self.after.reasons]
        return ", ".join(new or gone) or "other results"


def ending_of_run(run: Run, ending: str = "") -> Ending:
    """Return the ending of a run as folded; `ending` replaces that of a run that is open."""
    refused = run.refused
    reasons: tuple[str, ...] = ()
    if refused or run.failures or run.unrouted or run.starved or run.overspent:  # few runs
        gone = redriven_refusals(run)
        refused -= len(gone)
        refusals = [refusal for n, refusal in enumerate(run.refusals, 1) if n not in gone]
        names = [(found.code, found.agent) for found in refusals]
        names += [(found.code, found.agent) for found in run.failures]
        reasons = _reasons(names, [fact.type for fact in run.unrouted], run.starved, run.overspent)
    name = run.ending or ending or OPEN
    return Ending(name, run.tasks, run.usd_micros, run.tokens, len(run.results), refused, reasons)


def ending_of_outcome(body: Mapping[str, Any]) -> Ending:
    """Return the same from the body of an outcome."""
    get = body.get
    used, refusals, failures = get("used") or {}, get("refusals", ()), get("failures", ())
    unrouted, starved, overspent = get("unrouted", ()), get("starved", ()), get("overspent", ())
    usd = used.get("usd", 0)
    reasons: tuple[str, ...] = ()
    if refusals or failures or unrouted or starved or overspent:
        names = [(str(found.get("code")), str(found.get("agent") or "")) for found in (*refusals, *failures)]
        reasons = _reasons(names, [str(fact.get("type")) for fact in unrouted], starved, overspent)
    usd_micros = round(usd * 1_000_000) if usd else 0
    tasks, tokens, results = get("tasks", 0), used.get("tokens", 0), len(get("results", ()))
    return Ending(body["ending"], tasks, usd_micros, tokens, results, get("refused", 0), reasons)


def _reasons(
    names: Iterable[tuple[str, str]], unrouted: Iterable[str], starved: Iterable[str], overspent: Iterable[str]
) -> tuple[str, ...]:
    """Return what kept a run from completing, each once. `names`: code and agent of refusals and failures."""
    found = {f"{code} of {agent or 'the request'}" for code, agent in names}
    found |= {f"{type} unrouted" for type in unrouted}
    found |= {f"{text.partition(':')[0]} starved" for text in starved}
    found |= {f"{text.partition(':')[0]} overspent" for text in overspent}
    return tuple(sorted(found))


@dataclass(slots=True)
class Group:
    """Runs that end differently for the same reason."""

    runs: int = 0
    examples: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Totals:
    """Sums over the runs of a window."""

    runs: int = 0
    tasks: int = 0
    usd_micros: int = 0
    tokens: int = 0
    endings: Counter[str] = field(default_factory=Counter)

    def add(self, ending: Ending) -> None:
        """Add one run."""
        self.runs += 1
        self.tasks += ending.tasks
        self.usd_micros += ending.usd_micros
        self.tokens += ending.tokens
        self.endings[ending.ending] += 1


@dataclass(slots=True)
class WindowWhatIf:
    """The runs of a window under the other topology."""

    before: Totals = field(default_factory=Totals)
    after: Totals = field(default_factory=Totals)
    same: int = 0
    different: int = 0
    unknown: int = 0
    """Runs among the different ones that wait for an answer that was never recorded."""
    open: int = 0
    """Runs without an outcome in the recording; they are not compared."""
    outside: int = 0
    """Outcomes without a run: requested outside the window, removed, or opened again by a redrive."""
    head_removed: bool = False
    """Whether the window begins before the records that are left on the inbox."""
    groups: dict[tuple[str, str, str], Group] = field(default_factory=dict)
    """Ending before, ending after, reason → the runs."""

    def add(self, found: RunWhatIf) -> None:
        """Add one run."""
        if found.before is None:
            self.open += 1
            return
        self.before.add(found.before)
        self.after.add(found.after)
        if not found.differs:
            self.same += 1
            return
        self.different += 1
        self.unknown += found.after.ending == UNKNOWN
        key = (found.before.ending, found.after.ending, found.reason)
        if key not in self.groups and len(self.groups) >= GROUPS_MAX:
            key = (found.before.ending, found.after.ending, "other reasons")
        group = self.groups.setdefault(key, Group())
        group.runs += 1
        if len(group.examples) < EXAMPLES_MAX:
            group.examples.append(found.run_id)
