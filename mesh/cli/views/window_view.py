"""Windows of numbers as tables and as JSON lines."""

from collections.abc import Mapping
from typing import Final

from mesh.cli.framework.output import Output, Piece
from mesh.cli.framework.text import clock, counted, moment, span, took
from mesh.core.metrics.aggregate import Aggregate, merged
from mesh.core.metrics.definitions import DEFINITIONS, MS, SHARE, Measured, numbers
from mesh.core.metrics.measurements import AGENT, MESH
from mesh.core.metrics.windows import BASE_MS, Scoped
from mesh.core.protocol.event import rfc3339
from mesh.core.topology.model import Topology

COLUMNS: Final = (
    *(("answers", "ANSWERS"), ("error_rate", "ERRORS"), ("retry_rate", "RETRIES"), ("p50", "P50")),
    *(("p95", "P95"), ("p99", "P99"), ("waiting_p95", "WAITED"), ("context_drift", "DRIFT")),
    *(("tokens", "TOKENS"), ("usd", "USD")),
)
"""Number and head of each column; `answers` is a count."""
_RUNS: Final = ("completion_rate", "run_p50", "run_p95", "cycle_rate", "cascade_depth", "overrides")
_MESH: Final = ("overhead", "decision_p95", "fallback_rate", "timeout_rate", "dead_letters", "refusals")
_LABELS: Final = {
    "completion_rate": "completed",
    "run_p50": "p50",
    "run_p95": "p95",
    "cycle_rate": "with loops",
    "cascade_depth": "cascade",
    "decision_p95": "decision p95",
    "fallback_rate": "fallbacks",
    "timeout_rate": "timeouts",
    "dead_letters": "dead letters",
}
_SHOWN_AT_ZERO: Final = frozenset({"completion_rate", "overhead", "error_rate"})
_EMPTY: Final = Aggregate()


class WindowView:
    """Shows windows of the whole mesh, or of one agent."""

    def __init__(self, output: Output, topology: Topology, agent: str | None) -> None:
        self._output, self._topology, self._agent = output, topology, agent
        self._scope = MESH if agent is None else AGENT + agent

    def lines(self, windows: Mapping[int, Scoped], length_ms: int) -> None:
        """Write a JSON line for each window and scope."""
        for start, scopes in windows.items():
            mesh = scopes.get(MESH, _EMPTY)
            for scope in sorted(scopes) if self._agent is None else [self._scope] * (self._scope in scopes):
                own = scopes[scope]
                values = numbers(Measured(own, mesh, length_ms))
                self._output.emit(
                    {
                        "scope": scope,
                        "start": rfc3339(start),
                        "end": rfc3339(start + length_ms),
                        "start_ms": start,
                        "length_ms": length_ms,
                        "numbers": {name: n for name, n in values.items() if n is not None},
                        "counts": own.counts,
                    }
                )

    def rows(self, windows: Mapping[int, Scoped], length_ms: int) -> None:
        """Print a table with a row for each window that does not overlap another one."""
        rows: list[list[Piece]] = []
        for start, scopes in windows.items():
            own = scopes.get(self._scope)
            if own is not None and start % length_ms == 0:
                rows.append([moment(start), *_cells(Measured(own, scopes.get(MESH, _EMPTY), length_ms))])
        self._output.table((f"{span(length_ms)} FROM", *(f">{head}" for _, head in COLUMNS)), rows)
        if not rows:
            self._output.note("Nothing happened in this time.")

    def summary(self, base: Mapping[int, Scoped], since_ms: int, now_ms: int) -> None:
        """Print the numbers of the mesh over the whole time, then a row for each agent."""
        length_ms = max(BASE_MS, now_ms - since_ms)
        mesh = merged(scopes[MESH] for scopes in base.values() if MESH in scopes)
        if not base:
            self._output.note(f"Nothing happened since {moment(since_ms)}.")
            return
        whole = Measured(mesh, mesh, length_ms)
        ended = mesh.counts.get("ended", 0)
        self._output.print((f"since {moment(since_ms)}", "dim"))
        self._output.print("runs  ", (counted(ended, "ended run"), "bold"), *_facts(whole, _RUNS))
        self._output.print("mesh  ", (f"{mesh.counts.get('requests', 0):,} requested", "bold"), *_facts(whole, _MESH))
        for title, prefix in (("errors", "error:"), ("refused", "refusal:"), ("dead", "dead:")):
            if found := mesh.with_prefix(prefix):
                self._output.print(f"{title}  ", ", ".join(f"{code} {n:,}" for code, n in found.items()))
        names = [*self._topology.agents, *sorted(_agents(base) - self._topology.agents.keys())]
        rows: list[list[Piece]] = []
        for name in names:
            own = merged(scopes[AGENT + name] for scopes in base.values() if AGENT + name in scopes)
            if own.counts:
                rows.append([(name, "bold"), *_cells(Measured(own, mesh, length_ms))])
        if rows:
            self._output.print("")
            self._output.table(("AGENT", *(f">{head}" for _, head in COLUMNS)), rows)

    def begin_following(self) -> None:
        """Say that windows will come."""
        self._output.note((f"a line for each {span(BASE_MS)}; Ctrl-C ends", "dim"))

    def follow(self, start: int, scopes: Scoped) -> None:
        """Print one line for a window that has just ended."""
        if self._output.json:
            self.lines({start: scopes}, BASE_MS)
            return
        own = scopes.get(self._scope, _EMPTY)
        whole = Measured(own, scopes.get(MESH, _EMPTY), BASE_MS)
        first = "answers" if self._agent else "requests"
        names = ("error_rate", "p50", "p95", "waiting_p95", "tokens", "usd")
        self._output.print(
            (f"{clock(start)[:8]}  ", "dim"), f"{own.counts.get(first, 0):>6,} {first}", *_facts(whole, names)
        )


def _agents(base: Mapping[int, Scoped]) -> set[str]:
    return {scope.removeprefix(AGENT) for scopes in base.values() for scope in scopes if scope.startswith(AGENT)}


def _cells(span: Measured) -> list[Piece]:
    cells: list[Piece] = [f"{span.own.counts.get('answers', 0):,}"]
    for name, _ in COLUMNS[1:]:
        value = DEFINITIONS[name].compute(span)
        cells.append((_text(name, value), "red" if name == "error_rate" and value else "") if value else "")
    return cells


def _facts(span: Measured, names: tuple[str, ...]) -> list[Piece]:
    """The numbers that have a value, each with its name; those that should be 0 only if they are not."""
    pieces: list[Piece] = []
    for name in names:
        value = DEFINITIONS[name].compute(span)
        if value or (value is not None and name in _SHOWN_AT_ZERO):
            pieces += [(" · ", "dim"), f"{_LABELS.get(name, name.replace('_', ' '))} {_text(name, value)}"]
    return pieces


def _text(name: str, value: float | None) -> str:
    """A number in its unit, for people."""
    if value is None:
        return ""
    unit = DEFINITIONS[name].unit
    if unit == SHARE:
        return f"{value * 100:.1f} %" if 0 < value < 0.1 else f"{value * 100:.0f} %"
    if unit == MS:
        return took(value)
    if unit == "USD":
        return f"{value:.4f}"
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:.2f}"
