"""`mesh bench`: measure the mesh on this machine and log."""

import asyncio
import importlib
from collections.abc import Coroutine
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from mesh.cli.framework.options import command, verb
from mesh.cli.framework.output import Output, Piece
from mesh.cli.framework.session import Session
from mesh.cli.framework.signals import terminable
from mesh.cli.framework.text import seconds
from mesh.core.errors import InvalidInput, NotFound

GATE_FAILED: Final = 1
FOR_S_MAX: Final = 3_600.0
KEPT: Final = ".mesh/bench"
app = verb()


@command(app, "bench", example="mesh bench run1 latency --for 10s")
def bench(
    session: Session,
    workloads: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="WORKLOAD",
            help="hop, run1, run3, join, fan, latency, io, scale, hotkey, payload, state, fold, replay, replay_agent, "
            "board, coldstart, memory, recovery, soak; default: all",
        ),
    ] = None,
    *,
    time: Annotated[str, typer.Option("--for", metavar="TIME", help="about how long each workload measures")] = "5s",
    gate: Annotated[str | None, typer.Option(metavar="FILE", help="fail if one of these bounds does not hold")] = None,
    to: Annotated[
        str, typer.Option(metavar="FOLDER", help="where results are kept; those of docs/ are in bench/results")
    ] = KEPT,
) -> int:
    """Measure the mesh on this machine.

    It uses the log that --log names. Without --log the log is an embedded one in a temporary folder, whatever the
    settings say, so that no mesh of yours gets load by accident. On a broker the topics have names of their own; they
    are not deleted.

    Every result is kept as JSON with machine, versions, commit and raw samples. Exit code 1 if a gate does not hold.
    """
    from mesh.app.process import tune_garbage_collector

    output, options = session.output, session.options
    measuring = _import_bench("bench.measuring")
    setup = _import_bench("bench.field").Setup(
        log=options.log or "", board=options.board or "", seconds=_seconds(time), say=output.update
    )
    gates = None if gate is None else _import_bench("bench.gates").read(Path(gate))
    bodies: list[dict[str, Any]] = []
    tune_garbage_collector()  # the client shares the cores with the services, where the collector is tuned, too
    for workload in measuring.chosen(workloads or []):
        with output.status(f"{workload.name}: {workload.what}"):
            body = asyncio.run(_with_signals(measuring.measure(workload, setup)))
        path = _import_bench("bench.report").save_result(body, Path(to))
        bodies.append(body)
        output.emit(body)
        _show(output, body, measuring.rows(body), path)
    return 0 if gates is None else _judge(output, _import_bench("bench.gates").judge(gates, bodies))


async def _with_signals(measuring: Coroutine[Any, Any, dict[str, Any]]) -> dict[str, Any]:
    """End the started services with the measurement, also at SIGTERM."""
    with terminable():
        return await measuring


def _import_bench(module: str) -> Any:
    """Import a module of the folder bench, which is part of the source tree and not of the package."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name not in ("bench", module):
            raise
        raise NotFound(
            "the benchmarks are not installed",
            where="mesh bench",
            remedy="They are in the source tree: install that with `pip install -e .`, or call it there",
        ) from error


def _seconds(text: str) -> float:
    found = seconds("--for", text)
    if not 0 < found <= FOR_S_MAX:
        raise InvalidInput("invalid duration", code="usage", where="--for", expected="more than 0s, up to 1h", got=text)
    return found


def _show(output: Output, body: dict[str, Any], rows: Any, path: Path) -> None:
    output.print((body["workload"], "bold"), f"  {body['what']}", (f"  log: {body['log']}", "dim"))
    cells: list[list[Piece]] = [[f"  {row.name}", row.at, row.value, (row.spread, "dim")] for row in rows]
    output.table(("  FIGURE", "AT", ">VALUE", "SAMPLES"), cells)
    output.note((f"kept in {path}", "dim"))


def _judge(output: Output, verdicts: Any) -> int:
    for verdict in verdicts:
        output.emit({"gate": verdict.sentence, "holds": verdict.holds, "value": verdict.value})
        mark = {True: ("✓ ", "green"), False: ("✗ ", "red"), None: ("· ", "dim")}[verdict.holds]
        output.print(mark, verdict.sentence)
    return GATE_FAILED if any(verdict.holds is False for verdict in verdicts) else 0
