"""The numbers to reach, line by line, beside what was measured: a chapter of docs/reference/benchmarks.md.

The lines are the gates of bench/gates-strict.toml. One that is not reached points at its chapter of
docs/reference/performance.md, which people write: what the profile says, and what was tried.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from bench.gates import Gate, Verdict, judge, read
from bench.report import significant

FILE: Final = Path(__file__).with_name("gates-strict.toml")
EXPLAINED: Final = "performance.md"
HEAD: Final = """\
## Numbers to reach

On two cores that also run the broker. The bounds are in
[bench/gates-strict.toml](../../bench/gates-strict.toml), judged by `make gates-strict`.

| what | wanted | measured | reached | made by |
|---|---:|---:|---|---|
"""


def chapter(bodies: Sequence[Mapping[str, Any]], gates: Sequence[Gate] | None = None) -> str:
    """The chapter, a line for each gate and result."""
    return HEAD + "".join(_rows(judge(read(FILE) if gates is None else gates, bodies)))


def _rows(verdicts: Sequence[Verdict]) -> Iterator[str]:
    for verdict in verdicts:
        gate, body = verdict.gate, verdict.body
        unit = "x" if gate.over is not None else _unit(gate, body)
        measured = "not measured" if verdict.value is None else _number(verdict.value, unit)
        why = f"[why]({EXPLAINED}#{gate.why})" if gate.why else ""
        reached = "–" if verdict.value is None else "yes" if verdict.holds else f"**no** {why}".strip()
        several = sum(other.gate is gate for other in verdicts) > 1
        line = f"{gate.line or gate.figure}, {body['log']}" if several and body else gate.line or gate.figure
        made = f"`{body['command']}`, commit {body['commit'] or 'unknown'}" if body else "–"
        yield f"| {line} | {_wanted(gate, unit)} | {measured} | {reached} | {made} |\n"


def _wanted(gate: Gate, unit: str) -> str:
    bounds = (("≥", gate.at_least), ("≤", gate.at_most))
    return " and ".join(f"{sign} {_number(bound, unit)}" for sign, bound in bounds if bound is not None)


def _number(value: float, unit: str) -> str:
    return f"{significant(value):,} {unit}".strip()


def _unit(gate: Gate, body: Mapping[str, Any] | None) -> str:
    figures = body["figures"] if body else ()
    return next((str(figure["unit"]) for figure in figures if figure["name"] == gate.figure), "")
