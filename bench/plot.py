"""Plots of results as SVG. The only file that imports matplotlib, which is the extra `bench`; the mesh never does."""

import io
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from bench.histogram import Histogram
from mesh.core.errors import MeshError

WIDTH_IN, HEIGHT_IN = 7.2, 3.6
LOGARITHMIC_FROM: Final = 20
"""Of the greatest to the smallest: from here on an axis is logarithmic."""
HEADLINES: Final = {
    "hop": "hops_per_s",
    "fan": "tasks_per_s",
    "io": "added_ms",
    "state": "cpu_us_per_event",
    "fold": "events_per_s",
    "board": "increments_per_s",
    "coldstart": "first_outcome_s",
    "memory": "idle_memory_mib",
    "recovery": "hand_over_s",
}
"""Workload → the figure that is drawn; the others: runs_per_s. latency has a drawing of its own."""
CURVE: Final = (0, 50, 75, 90, 95, 99, 99.5, 99.9)

Body = Mapping[str, Any]


def svg(workload: str, bodies: Sequence[Body]) -> bytes | None:
    """One drawing of all subjects and logs; None where there is nothing to draw. The same results give the same bytes.
    Raises MeshError when matplotlib is not installed."""
    os.environ.setdefault("MPLCONFIGDIR", str(Path(os.environ.get("TMPDIR", "/tmp")) / "mesh-matplotlib"))
    try:
        from matplotlib import rc_context
        from matplotlib.backends.backend_svg import FigureCanvasSVG
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        remedy = "`pip install 'agent-mesh[bench]'` installs it; --no-plots leaves them out"
        raise MeshError("the plots need matplotlib", where="bench.report_page", remedy=remedy) from error
    with rc_context({"svg.hashsalt": workload, "font.size": 9, "svg.fonttype": "none"}):
        figure = Figure(figsize=(WIDTH_IN, HEIGHT_IN), layout="constrained")
        FigureCanvasSVG(figure)
        axes = figure.add_subplot()
        draw: Callable[[Any, str, Sequence[Body]], bool] = _latency if workload == "latency" else _headline
        if not draw(axes, workload, bodies):
            return None
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
        out = io.BytesIO()
        figure.savefig(out, format="svg", metadata={"Date": None})
    return out.getvalue()


def _headline(axes: Any, workload: str, bodies: Sequence[Body]) -> bool:
    name = HEADLINES.get(workload, "runs_per_s")
    chosen = [(body, f) for body in bodies for f in body["figures"] if f["name"] == name]
    if not chosen:
        return False
    axes.set_ylabel(f"{name} [{chosen[0][1]['unit']}]")
    key = _varied([figure for _, figure in chosen])
    if key:
        _lines(axes, key, name, bodies)
    else:
        _bars(axes, chosen)
        for place, (body, _) in enumerate(chosen):
            _limits(axes, place, body)
    _from_zero(axes)
    return True


def _varied(figures: Sequence[Mapping[str, Any]]) -> str:
    """The key of `at` whose values are different numbers; empty for none."""
    for key in figures[0]["at"]:
        values = {figure["at"].get(key) for figure in figures}
        if len(values) > 1 and all(isinstance(value, int | float) for value in values):
            return str(key)
    return ""


def _lines(axes: Any, key: str, name: str, bodies: Sequence[Body]) -> None:
    at: list[float] = []
    for body in bodies:
        for drawn in (name, *(f["name"] for f in body["figures"] if f["limit"])):
            points = sorted(
                (f["at"][key], f["value"]) for f in body["figures"] if f["name"] == drawn and key in f["at"]
            )
            if not points or drawn in axes.get_legend_handles_labels()[1]:
                continue
            xs, ys = zip(*points, strict=True)
            at += xs
            style: dict[str, Any] = {"marker": "o"} if drawn == name else {"linestyle": "--", "color": "0.5"}
            axes.plot(xs, ys, label=_who(body) if drawn == name else drawn, **style)
        for figure in (f for f in body["figures"] if f["name"] == name and key in f["at"]):
            dots = [sample for sample in figure["samples"] if isinstance(sample, int | float)]
            axes.plot([figure["at"][key]] * len(dots), dots, ".", color="0.6", markersize=3, zorder=1)
    axes.set_xlabel(key)
    if min(at) > 0 and max(at) / min(at) >= LOGARITHMIC_FROM:
        axes.set_xscale("log")
    axes.set_xticks(sorted(set(at)), [f"{place:,}" for place in sorted(set(at))])
    axes.minorticks_off()
    axes.legend(frameon=False)


def _bars(axes: Any, chosen: Sequence[tuple[Body, Mapping[str, Any]]]) -> None:
    labels = [" ".join([_who(body), *map(str, figure["at"].values())]) for body, figure in chosen]
    axes.bar(range(len(chosen)), [figure["value"] for _, figure in chosen], color="tab:blue", alpha=0.6, width=0.5)
    for place, (_, figure) in enumerate(chosen):
        dots = [sample for sample in figure["samples"] if isinstance(sample, int | float)]
        axes.plot([place] * len(dots), dots, ".", color="0.2", markersize=4)
    axes.set_xticks(range(len(chosen)), labels)
    axes.set_xlim(-1, len(chosen))


def _limits(axes: Any, place: int, body: Body) -> None:
    """Above the bar that they are limits of; names by turns on the left and on the right, since values may be near."""
    limits = sorted((f for f in body["figures"] if f["limit"]), key=lambda f: float(f["value"]))
    for turn, limit in enumerate(limits):
        side, at = (("left", place - 0.48), ("right", place + 0.48))[turn % 2]
        axes.hlines(limit["value"], place - 0.48, place + 0.48, linestyle="--", linewidth=1, color="0.5")
        axes.annotate(f"{limit['name']}, {body['log']}", (at, limit["value"]), fontsize=7, va="bottom", ha=side)


def _latency(axes: Any, workload: str, bodies: Sequence[Body]) -> bool:
    """Milliseconds over percentiles, one line for each rate; the axis stretches towards 100 %, as HDR plots do."""
    drawn = False
    for body in bodies:
        for figure in (f for f in body["figures"] if f["name"] == "p50_ms" and f["samples"]):
            took = Histogram.of(figure["samples"])
            places = [1 / (1 - percent / 100) for percent in CURVE]
            label = f"{_who(body)}, {figure['at'].get('rate_per_s', '')}/s"
            axes.plot(places, [took.percentile(percent) for percent in CURVE], marker=".", label=label)
            drawn = True
    axes.set_xscale("log")
    shown = [percent for percent in CURVE if percent in (0, 50, 90, 99, 99.9)]
    axes.set_xticks([1 / (1 - percent / 100) for percent in shown], [f"{percent:g} %" for percent in shown])
    axes.minorticks_off()
    axes.set_xlabel("percentile")
    axes.set_ylabel("ms")
    if drawn:
        axes.legend(frameon=False)
        _from_zero(axes)
    return drawn


def _who(body: Body) -> str:
    return str(body["subject"]) if body["log"] == "none" else f"{body['subject']} on {body['log']}"


def _from_zero(axes: Any) -> None:
    low, high = axes.dataLim.y0, axes.dataLim.y1
    if low > 0 and high / low >= LOGARITHMIC_FROM:
        axes.set_yscale("log")
    else:
        axes.set_ylim(bottom=0)
