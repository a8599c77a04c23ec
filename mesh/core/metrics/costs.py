"""What a mesh has cost: tokens and money of answers, summed by agent, run, type of request or day. Pure.

An attempt reports its usage with its answer, also when it fails, so a retry costs again. The type of an answer is that
of the request which began its run.
"""

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple

from mesh.core.protocol.codec import Unreadable, read_event
from mesh.core.protocol.event import FAILED, REQUESTED, SUCCEEDED, Event
from mesh.core.protocol.record import Record

UNKNOWN: Final = "(unknown)"
"""Type of a run whose request was not read."""
RUNS_KNOWN_MAX: Final = 1_000_000
"""Runs whose type is remembered."""
MICROS: Final = 1_000_000


class Cost(NamedTuple):
    """What answers used. `answers`: those that reported usage."""

    answers: int = 0
    tokens: int = 0
    usd_micros: int = 0

    @property
    def usd(self) -> float:
        """Return the money in dollars."""
        return self.usd_micros / MICROS


class CostRow(NamedTuple):
    """One line of a bill: the name of an agent, run, type or day, and what it cost."""

    name: str
    cost: Cost
    runs: int
    """Runs with an answer in it."""
    share: float
    """Part of the money, or of the tokens where nothing cost money."""


class Bill:
    """Costs by name. `take` records of the inbox in order; those before `since_ms` tell types of requests alone."""

    def __init__(self, by: str, since_ms: int, day_of: Callable[[int], str]) -> None:
        """`by`: a name of BY. `day_of`: the day of a log time."""
        self._name = BY[by]
        self.since_ms, self.day_of = since_ms, day_of
        self.types: OrderedDict[str, str] = OrderedDict()
        """Run → type of its request."""
        self.answers = 0
        """Number of answers, also of those without usage."""
        self._costs: dict[str, Cost] = {}
        self._runs: dict[str, set[str]] = {}

    def take(self, record: Record) -> None:
        """Take a record of the inbox."""
        event = read_event(record)
        if isinstance(event, Unreadable):
            return
        if event.kind == REQUESTED:
            self.types.setdefault(event.run_id, event.type)
            if len(self.types) > RUNS_KNOWN_MAX:
                self.types.popitem(last=False)
        elif event.kind in (SUCCEEDED, FAILED) and record.timestamp >= self.since_ms:
            self.answers += 1
            used = event.usage
            if used is not None and (used.tokens or used.usd_micros):
                name = self._name(self, event)
                before = self._costs.get(name, Cost())
                cost = Cost(before.answers + 1, before.tokens + used.tokens, before.usd_micros + used.usd_micros)
                self._costs[name] = cost
                self._runs.setdefault(name, set()).add(event.run_id)

    @property
    def total(self) -> CostRow:
        """Return the sum of all."""
        cost = Cost(*map(sum, zip(*self._costs.values(), strict=True))) if self._costs else Cost()
        return CostRow("total", cost, len(set().union(*self._runs.values())), 1.0 if self._costs else 0.0)

    def rows(self, *, in_order: bool = False) -> Sequence[CostRow]:
        """Return what cost anything, the dearest first; `in_order`: by name, as days are."""
        whole = self.total.cost
        found = []
        for name, cost in self._costs.items():
            part, of = (cost.usd_micros, whole.usd_micros) if whole.usd_micros else (cost.tokens, whole.tokens)
            found.append(CostRow(name, cost, len(self._runs[name]), part / of))
        if in_order:
            return sorted(found, key=lambda row: row.name)
        return sorted(found, key=lambda row: (-row.cost.usd_micros, -row.cost.tokens, row.name))


def _day(bill: Bill, event: Event) -> str:
    return bill.day_of(event.at_ms)


BY: Final[Mapping[str, Callable[[Bill, Event], str]]] = {
    "agent": lambda _, event: event.agent,
    "run": lambda _, event: event.run_id,
    "type": lambda bill, event: bill.types.get(event.run_id, UNKNOWN),
    "day": _day,
}
"""What costs are summed by → the name of the sum to which an answer belongs."""
