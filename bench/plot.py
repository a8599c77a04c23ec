"""Plots of results as SVG. The only file that imports matplotlib, which is the extra `bench`; the mesh never does."""

import io
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from bench.histogram import Histogram
from bench.peers_page import is_ours
from mesh.core.errors import MeshError

WIDTH_IN, HEIGHT_IN = 7.2, 3.6
ROW_IN, ROW_OF_LIMITS_IN, AROUND_IN = 0.4, 0.55, 1.2
"""Inches of a bar, of a bar with limits, and of the margin around all."""
LOGARITHMIC_FROM: Final = 20
"""Ratio of the largest to the smallest value from which an axis is logarithmic."""
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
OURS, THEIRS, UNSAFE = "tab:blue", "0.62", "tab:red"
LOG_STYLES: Final = {"sqlite": "-", "kafka": "--", "none": "-"}
COLOURS: Final = ("tab:blue", "tab:orange", "tab:green", "tab:purple")

Body = Mapping[str, Any]
Chosen = Sequence[tuple[Body, Mapping[str, Any]]]


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
        figure = Figure(figsize=(WIDTH_IN, HEIGHT_IN), layout="constrained", facecolor="white")
        FigureCanvasSVG(figure)
        axes = figure.add_subplot()
        draw: Callable[[Any, str, Sequence[Body]], bool] = _latency if workload == "latency" else _headline
        if not draw(axes, workload, bodies):
            return None
        axes.set_title(f"{workload}: {bodies[0]['what']}", fontsize=9, loc="left")
        axes.grid(alpha=0.3)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        out = io.BytesIO()
        figure.savefig(out, format="svg", metadata={"Date": None})
    return out.getvalue()


def _headline(axes: Any, workload: str, bodies: Sequence[Body]) -> bool:
    name = HEADLINES.get(workload, "runs_per_s")
    chosen = [(body, f) for body in bodies for f in body["figures"] if f["name"] == name]
    if not chosen:
        return False
    key = _varied([figure for _, figure in chosen])
    if key:
        _lines(axes, key, name, bodies)
        axes.set_ylabel(_said(name))
        _from_zero(axes)
    else:
        _bars(axes, chosen)
        axes.set_xlabel(_said(name))
    return True


def _said(name: str) -> str:
    return name.replace("_", " ").replace(" us ", " µs ")


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
            label = _who(body) if drawn == name else _limit(drawn)
            if not points or label in axes.get_legend_handles_labels()[1]:
                continue
            xs, ys = zip(*points, strict=True)
            at += xs
            style: dict[str, Any] = {"marker": "o"} if drawn == name else {"linestyle": ":", "color": "0.3"}
            axes.plot(xs, ys, label=label, **style)
        for figure in (f for f in body["figures"] if f["name"] == name and key in f["at"]):
            dots = _dots(figure)
            axes.plot([figure["at"][key]] * len(dots), dots, ".", color="0.6", markersize=3, zorder=1)
    axes.set_xlabel(_said(key))
    if min(at) > 0 and max(at) / min(at) >= LOGARITHMIC_FROM:
        axes.set_xscale("log")
    axes.set_xticks(sorted(set(at)), [f"{place:,}" for place in sorted(set(at))])
    axes.minorticks_off()
    axes.legend(frameon=False)


def _dots(figure: Mapping[str, Any]) -> list[float]:
    return [sample for sample in figure["samples"] if isinstance(sample, int | float)]


def _bars(axes: Any, chosen: Chosen) -> None:
    """Ours first, then the others by their values; the value stands in its bar, its limits are drawn through it."""
    chosen = sorted(chosen, key=lambda pair: (pair[0]["subject"] != "mesh", not is_ours(pair[0]), -pair[1]["value"]))
    axes.figure.set_figheight(AROUND_IN + len(chosen) * (ROW_OF_LIMITS_IN if _limits_of(chosen) else ROW_IN))
    for place, (body, figure) in enumerate(chosen):
        colour = OURS if is_ours(body) else UNSAFE if body["safe"] is False else THEIRS
        axes.barh(place, figure["value"], color=colour, alpha=0.55, height=0.6)
        dots = _dots(figure)
        axes.plot(dots, [place] * len(dots), ".", color="0.2", markersize=3)
        axes.annotate(f" {figure['value']:,}", (0, place + 0.17), fontsize=8, va="center")
    drawn = [f for _, f in chosen]
    top = max([*(f["value"] for f in (*drawn, *_limits_of(chosen))), *(dot for f in drawn for dot in _dots(f))])
    for place, (body, _) in enumerate(chosen):
        _limits(axes, place, body, top)
    axes.set_yticks(range(len(chosen)), [_named(body, figure) for body, figure in chosen])
    axes.set_ylim(len(chosen) - 0.4, -0.8)
    axes.set_xlim(0, top * 1.05)
    axes.xaxis.set_major_formatter("{x:,g}")


def _named(body: Body, figure: Mapping[str, Any]) -> str:
    unsafe = " (loses work)" if body["safe"] is False else ""
    return " ".join([_who(body), *map(str, figure["at"].values())]) + unsafe


def _limits_of(chosen: Chosen) -> list[Mapping[str, Any]]:
    return [figure for body, _ in chosen for figure in body["figures"] if figure["limit"]]


def _limits(axes: Any, place: int, body: Body, top: float) -> None:
    """Through the row that they are limits of; names by turns above and below, since values may be near."""
    limits = sorted((f for f in body["figures"] if f["limit"]), key=lambda f: float(f["value"]))
    for turn, limit in enumerate(limits):
        axes.vlines(limit["value"], place - 0.45, place + 0.45, linestyle="--", linewidth=1, color="0.3")
        side, pad = ("right", -3) if limit["value"] > top / 2 else ("left", 3)
        at = (limit["value"], place + (-0.36, 0.38, 0.0)[turn % 3])
        style = {"xytext": (pad, 0), "textcoords": "offset points", "fontsize": 7, "va": "center", "ha": side}
        axes.annotate(f"{_limit(limit['name'])}: {limit['value']:,.0f}", at, **style)


def _limit(name: str) -> str:
    """`log_alone_runs_per_s` → log alone."""
    return name.replace("_per_s", "").replace("_runs", "").replace("_records", "").replace("_", " ")


def _latency(axes: Any, workload: str, bodies: Sequence[Body]) -> bool:
    """Milliseconds over percentiles, one line for each rate; the axis stretches towards 100 %, as HDR plots do.

    Only workloads keep the latency of each run: comparisons of sides keep percentiles, and have no curve.
    """
    drawn = False
    for body in bodies:
        if body["subject"] != "mesh":
            continue
        figures = [f for f in body["figures"] if f["name"] == "p50_ms" and f["samples"]]
        for figure, colour in zip(figures, COLOURS, strict=False):
            took = Histogram.of(figure["samples"])
            places = [1 / (1 - percent / 100) for percent in CURVE]
            label = f"{_who(body)}, {figure['at'].get('rate_per_s', '')}/s"
            style = {"marker": ".", "color": colour, "linestyle": LOG_STYLES.get(body["log"], ":")}
            axes.plot(places, [took.percentile(percent) for percent in CURVE], label=label, **style)
            drawn = True
    axes.set_xscale("log")
    shown = [percent for percent in CURVE if percent in (0, 50, 90, 99, 99.9)]
    axes.set_xticks([1 / (1 - percent / 100) for percent in shown], [f"{percent:g} %" for percent in shown])
    axes.minorticks_off()
    axes.set_xlabel("percentile")
    axes.set_ylabel("ms")
    if drawn:
        axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
        _from_zero(axes)
    return drawn


def _who(body: Body) -> str:
    if is_ours(body) and body["subject"] != "mesh":
        log = "kafka" if "kafka" in (body["log"], *body["subject"].split("-")) else "sqlite"
        return f"mesh on {log}, beside peers"
    return str(body["subject"]) if body["log"] == "none" else f"{body['subject']} on {body['log']}"


def _from_zero(axes: Any) -> None:
    """From zero where that shows anything, else logarithmic; numbers written out."""
    low, high = axes.dataLim.y0, axes.dataLim.y1
    if low > 0 and high / low >= LOGARITHMIC_FROM:
        from matplotlib.ticker import LogLocator

        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_minor_formatter("")
    else:
        axes.set_ylim(0, high * 1.08)
    axes.yaxis.set_major_formatter("{x:,g}")
