"""`mesh top`: the state of a mesh as lines of a screen, as a table, and as JSON."""

from collections.abc import Callable, Sequence
from math import ceil
from typing import Any, Final, NamedTuple

from mesh.cli.framework.folding import HANG, cells_of
from mesh.cli.framework.output import Piece
from mesh.cli.framework.text import ago, clock, counted, visible
from mesh.cli.views.run_view import id_of
from mesh.cli.views.switch_view import describe_stop, resume_command
from mesh.core.history.run_summary import Summary
from mesh.core.metrics.alerts import reason_of_stop
from mesh.core.metrics.definitions import DEFINITIONS, Measured, numbers
from mesh.core.protocol.event import rfc3339
from mesh.core.run.control import ALL, Switch
from mesh.core.task.fault_injection import parse_fault
from mesh.operations.health.live_state import AgentState, MeshState

RUNS_MAX: Final = 100
"""Open runs that are read; there may be more."""
NAME_CELLS_MIN: Final = 8
RED, YELLOW = "red", "yellow"


class Column(NamedTuple):
    """A column of the table of agents. `rank`: the lowest are left out first on a narrow screen."""

    key: str
    head: str
    rank: int
    cell: Callable[[AgentState], Piece]
    order: Callable[[AgentState], Any]
    """Sorts agents, the first ones first."""


def _number(state: AgentState, name: str) -> float:
    return DEFINITIONS[name].compute(state.measured) or 0.0


def _lag(state: AgentState) -> Piece:
    lag = state.lag
    return ("missing", RED) if lag is None else (f"{lag.lag:,}", YELLOW if lag.lag else "")


def _age(state: AgentState) -> Piece:
    lag = state.lag
    if lag is None or not lag.lag:
        return ""
    return "?" if lag.age_ms is None else _short(lag.age_ms)


def _rate(state: AgentState) -> Piece:
    value = _number(state, "rate")
    return f"{value:.{1 if value >= 1 else 2}f}/s" if value else ""


def _errors(state: AgentState) -> Piece:
    share = _number(state, "error_rate")
    return (f"{share * 100:.0f} %", RED) if share else ""


def _p95(state: AgentState) -> Piece:
    value = DEFINITIONS["p95"].compute(state.measured)
    return "" if value is None else _short(value)


def _usd(state: AgentState) -> Piece:
    value = _number(state, "usd")
    return f"{value:.4f}" if value else ""


def _short(ms: float) -> str:
    """A duration in few cells: `3 ms`, `1.2 s`, `12 s`, `5 m`, `3 h`."""
    if ms < 1_000:
        return f"{ms:.0f} ms"
    seconds = ms / 1_000
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} m" if seconds < 6_000 else f"{seconds / 3_600:.0f} h"


def state_of(state: AgentState) -> Piece:
    """Say in a word what keeps an agent from work, the gravest first; "" if nothing does."""
    if state.stop is not None:
        return ("stopped", RED)
    if state.breaker is not None:
        return ("breaker half-open" if state.half_open else "breaker open", YELLOW)
    if state.fault is not None:
        return ("broken on purpose", YELLOW)
    if state.alerts:
        return (f"alert {state.alerts[0].name}", RED)
    return ""


def _busy(state: AgentState) -> int:
    return 0 if state.lag is None else state.lag.in_flight or 0


COLUMNS: Final = (
    Column("name", "AGENT", 9, lambda state: (state.spec.name, "bold"), lambda state: state.spec.name),
    Column("lag", ">LAG", 8, _lag, lambda state: -(0 if state.lag is None else state.lag.lag)),
    Column("age", ">AGE", 4, _age, lambda state: -(0 if state.lag is None else state.lag.age_ms or 0)),
    Column("busy", ">BUSY", 3, lambda state: f"{_busy(state)}" if _busy(state) else "", lambda state: -_busy(state)),
    Column("rate", ">RATE", 6, _rate, lambda s: -_number(s, "rate")),
    Column("p95", ">P95", 5, _p95, lambda state: -_number(state, "p95")),
    Column("errors", ">ERR", 7, _errors, lambda state: -_number(state, "error_rate")),
    Column("usd", ">USD", 2, _usd, lambda state: -_number(state, "usd")),
    Column("state", "STATE", 7, state_of, lambda state: not state_of(state)),
)
SORTS: Final = tuple(column.key for column in COLUMNS)


class Picture(NamedTuple):
    """What a person chose to see. `selected`: name of an agent."""

    sort: str = ""
    """A key of SORTS; "": as declared."""
    selected: str = ""


def ordered(snapshot: MeshState, sort: str) -> Sequence[AgentState]:
    """Return the agents in the order of a column."""
    column = next((column for column in COLUMNS if column.key == sort), None)
    return snapshot.agents if column is None else sorted(snapshot.agents, key=column.order)


def heads() -> Sequence[str]:
    """Return the heads of the table of agents."""
    return [column.head for column in COLUMNS]


def row(state: AgentState) -> list[Piece]:
    """Return an agent as cells."""
    return [column.cell(state) for column in COLUMNS]


def summary(snapshot: MeshState, name: str, runs: Sequence[Summary]) -> list[list[Piece]]:
    """Return the lines above the agents: the mesh, the source of its numbers, what stands still and why."""
    counts, whole = snapshot.measured.own.counts, snapshot.measured
    many = f"{RUNS_MAX} or more" if len(runs) >= RUNS_MAX else f"{len(runs)}"
    first: list[Piece] = [(name, "bold"), f"  {clock(snapshot.at_ms)[:8]}"]
    second: list[Piece] = [
        f"{many} in flight · {counts.get('requests', 0):,} requested · {counts.get('ended', 0):,} ended"
    ]
    completed = DEFINITIONS["completion_rate"].compute(whole)
    if completed is not None:
        second.append((f" · {completed * 100:.0f} % completed", "" if completed > 0.95 else RED))
    if dead := counts.get("dead", 0):
        second.append((f" · {counted(dead, 'dead letter')}", RED))
    if usd := DEFINITIONS["usd"].compute(whole):
        second.append(f" · ${usd:.4f}")
    span_s = max(1, round((snapshot.at_ms - snapshot.since_ms) / 1_000))
    source = "windows of the monitor, and the log" if snapshot.from_monitor else "from the log, no monitor runs"
    first.append((f"  last {span_s} s: {source}", "dim"))
    lines: list[list[Piece]] = [first, second]
    for fact in snapshot.alerts.values():
        about = fact.scope.replace(":", " ")
        lines.append([(f"alert {fact.name}  ", RED), about, (f" {ago(fact.at_ms, snapshot.at_ms)}: ", "dim"), fact.why])
    for stop in snapshot.control.stops:
        shown = stop._replace(why=stop.why.partition(": ")[0]) if _is_of_alert(stop, snapshot) else stop
        lines.append([("■ ", RED), *describe_stop(shown), (f"  {resume_command(stop)}", "bold")])
    for state in snapshot.agents:
        fault = None if state.fault is None else parse_fault(state.fault.how)
        if state.fault is not None and fault is not None:
            left_s = max(0, state.fault.until_ms - snapshot.at_ms) // 1_000
            undo = (f"  mesh unbreak {state.spec.name}", "bold")
            lines.append([("✗ ", YELLOW), f"agent {state.spec.name} {fault.words}, on purpose, {left_s} s more", undo])
        if state.breaker is not None:
            why = f": {state.breaker.why}" if state.breaker.why else ""
            told = f"breaker of {state.spec.name} open since {ago(state.breaker.at_ms, snapshot.at_ms)}"
            lines.append([("◐ ", YELLOW), told, (why, "dim")])
    for lag in snapshot.services:
        if lag.lag:
            lines.append([(f"{lag.consumer} is {counted(lag.lag, 'record')} behind on {lag.topic}", YELLOW)])
    return lines


def _is_of_alert(stop: Switch, snapshot: MeshState) -> bool:
    """Whether a stop was made by an alert that stands, which has the reason."""
    return any(stop.why == reason_of_stop(fact) for fact in snapshot.alerts.values())


def table(states: Sequence[AgentState], picture: Picture, width: int) -> list[list[Piece]]:
    """Return heads and agents as lines that fit a screen: columns of little weight are left out, long names are cut."""
    room = width - 2
    kept = [column for column in COLUMNS if column.rank == 9 or any(_text(column.cell(one)) for one in states)]
    while True:
        cells = [[column.head.lstrip(">") for column in kept], *([_text(c.cell(one)) for c in kept] for one in states)]
        widths = [max(map(cells_of, column)) for column in zip(*cells, strict=True)]
        over = sum(widths) + 2 * (len(widths) - 1) - room
        if over <= 0:
            break
        if widths[0] - over >= NAME_CELLS_MIN or len(kept) <= 2:
            widths[0] = max(1, widths[0] - over)
            break
        kept.remove(min(kept, key=lambda column: column.rank))
    lines: list[list[Piece]] = [["  ", *_line([(c.head.lstrip(">"), "dim") for c in kept], kept, widths)]]
    for one in states:
        chosen = one.spec.name == picture.selected
        cursor: Piece = ("▸ ", "cyan") if chosen else "  "
        lines.append([cursor, *_line([column.cell(one) for column in kept], kept, widths)])
    return lines


def _line(cells: Sequence[Piece], columns: Sequence[Column], widths: Sequence[int]) -> list[Piece]:
    pieces: list[Piece] = []
    for cell, column, width in zip(cells, columns, widths, strict=True):
        text, style = (cell, "") if isinstance(cell, str) else cell
        text = visible(text)
        if cells_of(text) > width:
            text = text[: max(0, width - 1)] + "…"
        gap = " " * max(0, width - cells_of(text))
        pieces += ["  "] if pieces else []
        pieces.append((gap + text if column.head.startswith(">") else text + gap, style))
    return pieces


def _text(cell: Piece) -> str:
    return visible(cell if isinstance(cell, str) else cell[0])


def run_lines(runs: Sequence[Summary], now_ms: int, lines_max: int, width: int | None = None) -> list[list[Piece]]:
    """Return the runs in flight, the oldest first, in at most so many lines, cut at a width."""
    if not runs or lines_max < 2:
        return []
    oldest = sorted(runs, key=lambda run: run.opened_ms)
    lines: list[list[Piece]] = [[("  IN FLIGHT, OLDEST FIRST", "dim")]]
    shown = oldest if len(oldest) < lines_max else oldest[: max(1, lines_max - 2)]
    for run in shown:
        paused: Piece = ("  paused", YELLOW) if run.paused else ""
        about = f"  {run.subject}" if run.subject else ""
        age = f"{_short(max(0, now_ms - run.opened_ms)):>6}"
        tasks = (f"  {counted(run.tasks, 'task')}", "dim")
        lines.append([f"  {age}  ", (id_of(run.run_id), "bold"), f"  {run.type}", tasks, paused, about])
    if len(shown) < len(oldest):
        lines.append([(f"  … and {len(oldest) - len(shown):,} more: mesh run list --state open", "dim")])
    return lines if width is None else [_cut(line, width) for line in lines]


def lines_at(line: Sequence[Piece], width: int) -> int:
    """Return how many lines of a screen a line takes."""
    return max(1, ceil(sum(cells_of(_text(piece)) for piece in line) / max(1, width - HANG)))


def _cut(line: list[Piece], width: int) -> list[Piece]:
    """Cut a line that is wider than the screen."""
    found: list[Piece] = []
    for piece in line:
        text, style = (piece, "") if isinstance(piece, str) else piece
        text = visible(text)
        if cells_of(text) > width:
            while text and cells_of(text) >= width:
                text = text[:-1]
            return [*found, (text + "…", style)] if width > 0 else found
        width -= cells_of(text)
        found.append((text, style))
    return found


def document(snapshot: MeshState, name: str, runs: Sequence[Summary]) -> dict[str, Any]:
    """Return everything as one JSON value."""
    return {
        "mesh": name,
        "at": rfc3339(snapshot.at_ms),
        "since": rfc3339(snapshot.since_ms),
        "source": "monitor" if snapshot.from_monitor else "log",
        "numbers": _numbers(snapshot.measured),
        "agents": [_agent_json(state) for state in snapshot.agents],
        "services": [
            {"consumer": lag.consumer, "topic": lag.topic, "lag": lag.lag, "age_ms": lag.age_ms}
            for lag in snapshot.services
        ],
        "runs_in_flight": len(runs),
        "runs_in_flight_are_more": len(runs) >= RUNS_MAX,
        "oldest_runs": [
            {"run": run.run_id, "type": run.type, "subject": run.subject, "opened": rfc3339(run.opened_ms)}
            for run in sorted(runs, key=lambda run: run.opened_ms)[:10]
        ],
        "alerts": [
            {"alert": fact.name, "scope": fact.scope, "why": fact.why, "at": rfc3339(fact.at_ms), "stops": fact.stops}
            for fact in snapshot.alerts.values()
        ],
        "stops": [
            {"agent": stop.agent, "all": stop.agent == ALL, "by": stop.by, "why": stop.why, "at": rfc3339(stop.at_ms)}
            for stop in snapshot.control.stops
        ],
    }


def _agent_json(state: AgentState) -> dict[str, Any]:
    lag, breaker, fault = state.lag, state.breaker, state.fault
    return {
        "agent": state.spec.name,
        "lag": None if lag is None else lag.lag,
        "age_ms": None if lag is None else lag.age_ms,
        "in_flight": None if lag is None else lag.in_flight,
        "numbers": _numbers(state.measured),
        "stopped": None if state.stop is None else {"by": state.stop.by, "why": state.stop.why},
        "breaker": None if breaker is None else "half-open" if state.half_open else "open",
        "broken": None if fault is None else {"how": fault.how, "until": rfc3339(fault.until_ms)},
        "alerts": [fact.name for fact in state.alerts],
    }


def _numbers(span: Measured) -> dict[str, float]:
    return {name: value for name, value in numbers(span).items() if value is not None}
