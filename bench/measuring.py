"""A workload run once: what `mesh bench` does for each name, and its figures as rows of a table."""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from bench.field import Setup
from bench.report import Result, significant
from bench.workloads import NAMES, Workload, load
from mesh.core.errors import MeshError, NotFound
from mesh.core.suggest import nearest


def chosen(names: Sequence[str]) -> list[Workload]:
    """The workloads of these names, all of them for none. Raises NotFound with the name that was probably meant."""
    for name in names:
        if name not in NAMES:
            near = nearest(name, NAMES)
            remedy = f"Did you mean {near!r}?" if near else f"Known: {', '.join(NAMES)}"
            raise NotFound(f"no workload is called {name!r}", where="mesh bench", remedy=remedy)
    return [load(name) for name in names or NAMES]


def command(name: str, setup: Setup) -> str:
    """Return the command that repeats the measurement; addresses are left out, since results are published."""
    words = ["mesh", "bench", name, "--for", f"{setup.seconds:g}s"]
    shown = [f"--{option} {url.partition(':')[0]}:…" for option, url in _urls(setup) if url]
    return " ".join([shlex.join(words), *shown])


async def measure(workload: Workload, setup: Setup) -> dict[str, Any]:
    """The result as it is written (`bench.report`). Raises MeshError when the workload did not do what it measures."""
    if not workload.on_log:
        setup = replace(setup, log="", board="")
    try:
        figures = await workload.run(setup)
    except (AssertionError, RuntimeError, TimeoutError) as error:
        what = str(error) or "its runs did not end in time"
        raise MeshError(
            f"the workload {workload.name} came to nothing: {what}",
            where="mesh bench",
            remedy="Nothing was written. A busy machine may need a longer --for",
        ) from error
    result = Result(
        workload.name,
        workload.what,
        workload.how,
        setup.kind if workload.on_log else "none",
        figures,
        {"seconds": setup.seconds, "board": setup.board.partition(":")[0] or "sqlite"},
        command(workload.name, setup),
    )
    return result.body()


class Row(NamedTuple):
    """One figure for people."""

    name: str
    at: str
    value: str
    spread: str
    """Lowest to highest sample; empty where the samples are no plain numbers."""


def rows(body: Mapping[str, Any]) -> Iterator[Row]:
    """The figures of a result, ceilings marked as such."""
    for figure in body["figures"]:
        samples = figure["samples"]
        plain = len(samples) > 1 and all(isinstance(sample, int | float) for sample in samples)
        at = ", ".join(f"{key} {_number(value)}" for key, value in figure["at"].items())
        name = f"{figure['name']} (limit)" if figure["limit"] else figure["name"]
        spread = f"{_number(min(samples))} … {_number(max(samples))}" if plain else ""
        yield Row(name, at, f"{_number(figure['value'])} {figure['unit']}", spread)


def _number(value: object) -> str:
    if isinstance(value, float):
        value = significant(value, 6)
    return f"{value:,}" if isinstance(value, int | float) else str(value)


def _urls(setup: Setup) -> list[tuple[str, str]]:
    return [("log", setup.log), ("board", setup.board)]
