"""Sides measured in turn, A B A B …, and what came of it: medians, and ratios round by round.

A ratio is taken within a round, since what slows a shared machine down slows both; so its spread is what is left.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from statistics import median
from typing import Any, Generic, NamedTuple, TypeVar


class Sample(NamedTuple):
    """One measurement: units of work a second, and processor time of the measured processes for each, in µs."""

    per_s: float
    cpu_us: float


class NotMeasured(RuntimeError):
    """A side could not be measured: it did not start, ended, or did no work."""


S = TypeVar("S")


class Measured(NamedTuple, Generic[S]):
    """The results of all rounds. A side that failed is in `failed` with its reason, and left out of later rounds."""

    samples: dict[str, list[S]]
    failed: dict[str, str]


class Ratio(NamedTuple):
    """The ratio of two sides over the rounds."""

    median: float
    low: float
    high: float


async def alternate(sides: Mapping[str, Callable[[], Awaitable[S]]], repeat: int) -> Measured[S]:
    """Every side once, then every side again, `repeat` times."""
    samples: dict[str, list[S]] = {name: [] for name in sides}
    failed: dict[str, str] = {}
    for _ in range(repeat):
        for name, measure in sides.items():
            if name in failed:
                continue
            try:
                samples[name].append(await measure())
            except NotMeasured as error:
                failed[name] = str(error)
    return Measured({name: got for name, got in samples.items() if name not in failed}, failed)


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> Ratio:
    """Ours over theirs, round by round. Raises ValueError for rounds that do not match, or none."""
    each = [a / b for a, b in zip(ours, theirs, strict=True)]
    if not each:
        raise ValueError("no round was measured")
    return Ratio(median(each), min(each), max(each))


def figures(
    measured: Measured[Sample], ours: Sequence[str], verdicts: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """For the table: each side's medians, raw samples, ratio of each of ours to it, and what kill -9 did to it."""
    bases = {name: measured.samples[name] for name in ours if measured.samples.get(name)}
    found: dict[str, Any] = {}
    for name, samples in measured.samples.items():
        side: dict[str, Any] = {
            "per_s": round(median(s.per_s for s in samples)),
            "per_s_all": [round(s.per_s) for s in samples],
            "cpu_us": round(median(s.cpu_us for s in samples), 1),
            "cpu_us_all": [round(s.cpu_us, 1) for s in samples],
        }
        if bases and name not in ours:
            theirs = [s.per_s for s in samples]
            side["ours_is"] = [ratio([s.per_s for s in base], theirs) for base in bases.values()]
        found[name] = side
    for name, reason in measured.failed.items():
        found[name] = {"failed": reason}
    for name, verdict in verdicts.items():
        found.setdefault(name, {})["kill_9"] = dict(verdict)
    return found


def table(sides: Mapping[str, Mapping[str, Any]]) -> str:
    """The figures as lines of text."""
    rows = [("", "per second", "CPU µs each", "ours is", "kill -9")]
    for name, side in sides.items():
        if "failed" in side:
            rows.append((name, "-", "-", "-", f"not measured: {side['failed'].splitlines()[0]}"))
            continue
        times = [f"{found.median:.2f} x ({found.low:.2f}-{found.high:.2f})" for found in side.get("ours_is", [])]
        shown = ", ".join(times) or "-"
        per_s, cpu = side.get("per_s", "-"), side.get("cpu_us", "-")
        text = f"{per_s:,}" if isinstance(per_s, int) else per_s
        rows.append((name, text, str(cpu), shown, _verdict(side.get("kill_9"))))
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    return "\n".join(
        "  ".join([row[0].ljust(widths[0]), *(row[i].rjust(widths[i]) for i in (1, 2, 3)), row[4]]) for row in rows
    )


def _verdict(verdict: Mapping[str, Any] | None) -> str:
    if verdict is None:
        return "not tested"
    if "failed" in verdict:
        return f"not tested: {verdict['failed'].splitlines()[0]}"
    lost, doubled, messages = verdict["lost"], verdict["doubled"], verdict["messages"]
    return f"{'safe' if verdict['safe'] else 'UNSAFE'}: {lost} of {messages} lost, {doubled} twice"
