"""The costs of the capacity model from results of `mesh bench` and `bench.growth`, and the error of the model."""

from collections.abc import Iterator, Mapping, Sequence
from statistics import median
from typing import Any, Final, NamedTuple

from bench.load import ROUNDS
from bench.model import Costs, Layout, StateCosts, burst_runs_per_s, limits
from bench.workloads import scale
from mesh.core.errors import MeshError

LOGS: Final = ("kafka", "sqlite")
"""The one that several machines can share comes first."""
ADDED_MS: Final = 5.0
"""To a task that waits, where the workload io was not measured."""

Body = Mapping[str, Any]


class Source(NamedTuple):
    """Costs, and the result they were taken from."""

    costs: Costs
    body: Body


class Check(NamedTuple):
    """A measured point beside what the model says of it."""

    what: str
    log: str
    measured: float
    predicted: float
    station: str
    """That is the limit, according to the model."""

    @property
    def error(self) -> float:
        """Return the error of the model: 0.1 is a tenth too much."""
        return self.predicted / self.measured - 1


def value(body: Body, figure: str, **at: Any) -> float | None:
    """A figure of a result at a point; None if it has none."""
    for found in body["figures"]:
        if found["name"] == figure and all(found["at"].get(key) == part for key, part in at.items()):
            return float(found["value"])
    return None


def costs_of(body: Body, **at: Any) -> Costs | None:
    """Return the costs of a run of this result; None if the result has no CPU time of the processes."""

    def us(service: str) -> float | None:
        return value(body, f"{service}_cpu_us_per_run", **at)

    orchestrator, worker = us("orchestrator"), us("worker")
    if not orchestrator or not worker:
        return None
    return Costs(
        orchestrator,
        worker,
        us("client") or 0.0,
        us("broker") or 0.0,
        value(body, "records_per_run", **at) or 0.0,
        value(body, "bytes_per_run", **at) or 0.0,
        value(body, "log_alone_records_per_s"),
    )


def found(bodies: Sequence[Body], workload: str, log: str) -> Body | None:
    """The mesh's result of a workload on a log."""
    mine = (b for b in bodies if (b["workload"], b["log"], b["subject"]) == (workload, log, "mesh"))
    return next(mine, None)


def source(bodies: Sequence[Body], workload: str = "run1") -> Source:
    """Costs of a run of that workload, on Kafka if it was measured there. Raises MeshError when it never was."""
    for log in LOGS:
        body = found(bodies, workload, log)
        costs = None if body is None else costs_of(body)
        if body is not None and costs is not None:
            return Source(costs, body)
    remedy = f"`mesh bench {workload}` measures it"
    raise MeshError(f"no result says what a run of {workload} costs", where="bench/results", remedy=remedy)


def state_source(bodies: Sequence[Body]) -> tuple[StateCosts, Body, Body]:
    """Return the costs of open runs, and the results of state and recovery. Raises MeshError when they were never
    measured."""
    state = found(bodies, "state", "none")
    for log in LOGS:
        recovery = found(bodies, "recovery", log)
        if state is None or recovery is None:
            continue
        each, piece = value(state, "open_run_bytes"), value(recovery, "checkpoint_bytes_per_run")
        point = next((f for f in recovery["figures"] if f["name"] == "after_kill_s"), None)
        if each and piece and point:
            return StateCosts(each, piece, point["value"] * 1e6 / point["at"]["open_runs"]), state, recovery
    raise MeshError(
        "no results say what open runs take",
        where="bench/results",
        remedy="`mesh bench state recovery` measures it",
    )


# ---------------------------------------------------------------------------------------------------------- checking


def checks(bodies: Sequence[Body]) -> list[Check]:
    """Every measured point that the model has something to say about."""
    return [check for log in LOGS for check in (*_plain(bodies, log), *_scale(bodies, log), *_growth(bodies, log))]


def _plain(bodies: Sequence[Body], log: str) -> Iterator[Check]:
    """One process of each service, agents that do next to nothing: predicted from the CPU time of the same point."""
    for workload in ("run1", "run3", "join"):
        body = found(bodies, workload, log)
        costs = None if body is None else costs_of(body)
        if body is None or costs is None:
            continue
        layout = Layout(cores=body["machine"]["cores"], partitions=4)
        yield _check(workload, body, costs, layout)


def _scale(bodies: Sequence[Body], log: str) -> Iterator[Check]:
    body, run1 = found(bodies, "scale", log), found(bodies, "run1", log)
    costs = None if run1 is None else costs_of(run1)
    if body is None or costs is None:
        return
    seconds = float(body["settings"]["seconds"]) / len(scale.WORKERS) / ROUNDS
    for at in [f["at"] for f in body["figures"] if f["name"] == "runs_per_s"]:
        layout = Layout(
            cores=body["machine"]["cores"],
            partitions=scale.PARTITIONS,
            workers=at["workers"],
            lanes=scale.LANES,
            wait_ms=scale.WAIT_MS + added_ms(bodies, log),
        )
        runs = max(1, int(value(body, "runs_per_s", **at) or 1) * seconds)
        yield _check("scale", body, costs, layout, int(runs), **at)


def _growth(bodies: Sequence[Body], log: str) -> Iterator[Check]:
    """More and more worker processes, predicted from what a run takes with one of them."""
    for work in ("growth-io", "growth-cpu"):
        body = found(bodies, work, log)
        costs = None if body is None else costs_of(body, processes=1)
        if body is None or costs is None:
            continue
        settings = body["settings"]
        for at in [f["at"] for f in body["figures"] if f["name"] == "runs_per_s"]:
            layout = Layout(
                cores=body["machine"]["cores"],
                partitions=settings["partitions"],
                workers=at["processes"],
                lanes=settings["lanes"],
                wait_ms=settings["wait_ms"] + added_ms(bodies, log) if settings["wait_ms"] else 0.0,
            )
            yield _check(work, body, costs, layout, int(value(body, "runs_per_burst", **at) or 0), **at)


def _check(what: str, body: Body, costs: Costs, layout: Layout, runs: int = 0, **at: Any) -> Check:
    measured = value(body, "runs_per_s", **at)
    assert measured, f"{what} has no runs_per_s at {at}"
    slowest = limits(costs, layout)[0]
    predicted = burst_runs_per_s(costs, layout, runs) if runs else slowest.runs_per_s
    named = ", ".join([what, *(f"{number} {key}" for key, number in at.items())])
    return Check(named, body["log"], measured, predicted, slowest.station)


def added_ms(bodies: Sequence[Body], log: str) -> float:
    """Return the milliseconds that the mesh adds to a wait."""
    body = found(bodies, "io", log)
    added = [f["value"] for f in body["figures"] if f["name"] == "added_ms"] if body is not None else []
    return float(median(added)) if added else ADDED_MS
