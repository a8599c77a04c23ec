"""Write the numbers of docs/guide/scaling.md from bench/results by the model: `python -m bench.scaling_page`.

The text of the page is written by hand; the text between `<!-- begin NAME -->` and `<!-- end -->` is replaced.
`--check` writes nothing and fails where the page differs from the results.
"""

import argparse
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from math import ceil
from pathlib import Path
from typing import Any, Final

from bench.costs import Source, checks, found, source, state_source, value
from bench.mesh_processes import ROOT
from bench.model import (
    COORDINATOR_REQUESTS_PER_S,
    MEMBER_REQUESTS_PER_S,
    REPLICAS_PER_BROKER_MAX,
    UTILISATION,
    Costs,
    Layout,
    group_size,
    limits,
    state_size,
    suggested,
)
from bench.report import RESULTS, results, significant
from mesh.core.errors import ConfigInvalid, MeshError

PAGE = ROOT / "docs" / "guide" / "scaling.md"
PARTITIONS: Final = (10, 100, 1_000)
MACHINES: Final = (1, 10, 100, 1_000)
CORES: Final = 8
REPLICATION: Final = 3
OPEN_RUNS: Final = (10_000, 100_000, 1_000_000, 10_000_000)
FEW: Final = 5
"""Orchestrators, for the memory of one of them."""
WAITS_MS: Final = (100, 1_000, 10_000)
RATES: Final = (100, 1_000, 10_000)
LANES: Final = 1_000
AGENTS: Final = (1, 5, 20)
_BLOCK: Final = re.compile(r"(<!-- begin (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)

Body = Mapping[str, Any]
Bodies = Sequence[Body]


def filled(text: str, bodies: Bodies) -> str:
    """Return the page with its blocks replaced. Raises ConfigInvalid for an unknown block, MeshError if results are
    missing."""

    def block(match: "re.Match[str]") -> str:
        make = BLOCKS.get(match[2])
        if make is None:
            raise ConfigInvalid(f"no block is called {match[2]!r}", where="the page", expected=", ".join(BLOCKS))
        return f"{match[1]}\n{make(bodies)}\n\n{match[3]}"

    return _BLOCK.sub(block, text)


# ----------------------------------------------------------------------------------------------------------- blocks


def _costs(bodies: Bodies) -> str:
    rows = []
    for workload in ("run1", "run3"):
        costs, body = source(bodies, workload)
        shown = [f"{us:,.0f}" for us in (costs.orchestrator_us, costs.worker_us, costs.client_us)]
        unknown = "none" if body["log"] == "sqlite" else "not measured"
        broker = f"{costs.broker_us:,.0f}" if costs.broker_us else unknown
        left = [_known(costs.records), _known(costs.records_bytes), _known(costs.log_records_per_s)]
        rows.append([f"{workload} on {body['log']}", *shown, broker, *left, _made(body)])
    heads = ["a run of", "orchestrator µs", "worker µs", "client µs", "broker µs", "records", "bytes"]
    return _table([*heads, "the log alone, records/s", "measured by"], rows)


def _checked(bodies: Bodies) -> str:
    rows = [
        [check.what, check.log, _round(check.measured), _round(check.predicted), f"{check.error:+.0%}", check.station]
        for check in checks(bodies)
    ]
    return _table(["point", "log", "measured runs/s", "model runs/s", "error of the model", "limit"], rows)


def _sizing(bodies: Bodies) -> str:
    options = source(bodies)
    costs = _elsewhere(options)
    rows = []
    for partitions in PARTITIONS:
        for machines in MACHINES:
            copies = min(REPLICATION, machines)
            layout = suggested(costs, machines=machines, cores=CORES, partitions=partitions, replication=copies)
            slowest, *_ = limits(costs, layout)
            processes = [f"{layout.orchestrators:,}", f"{layout.workers:,}"]
            planned = _round(slowest.runs_per_s * UTILISATION)
            cells = [f"{partitions:,}", f"{machines:,}", *processes, _round(slowest.runs_per_s), planned]
            rows.append([*cells, slowest.station, slowest.change])
    heads = ["partitions", "machines", "orchestrators", "workers", "runs/s at most", "plan for", "limit", "change"]
    note = (
        f"One-step runs, agents that do next to nothing, machines of {CORES} cores with a broker on each, up to"
        f" {REPLICATION} copies of every record. {_source_note(options)}"
    )
    return f"{note}\n\n{_table(heads, rows)}"


def _lanes(bodies: Bodies) -> str:
    costs = source(bodies).costs
    io = next((body for log in ("kafka", "sqlite") if (body := found(bodies, "io", log))), None)
    rows = []
    for wait_ms in WAITS_MS:
        for rate in RATES:
            at_once = rate * wait_ms / 1_000
            busy = rate * costs.worker_us / 1e6 / UTILISATION
            processes = max(1, ceil(at_once / LANES), ceil(busy))
            rows.append([f"{wait_ms:,} ms", f"{rate:,}", f"{at_once:,.0f}", f"{processes:,}"])
    table = _table(["a task waits", "runs/s", "tasks at once", f"worker processes of {LANES:,} lanes"], rows)
    memory = None if io is None else value(io, "worker_memory_mib")
    if io is None or memory is None:
        return table
    tasks = _known(value(io, "tasks_at_once"))
    return f"{table}\n\nA worker in which {tasks} tasks waited at once had {memory:,.0f} MiB at its peak: {_made(io)}."


def _state(bodies: Bodies) -> str:
    costs, state, recovery = state_source(bodies)
    rows = []
    for open_runs in OPEN_RUNS:
        for partitions in PARTITIONS:
            size = state_size(costs, open_runs=open_runs, partitions=partitions, orchestrators=partitions)
            few = state_size(costs, open_runs=open_runs, partitions=partitions, orchestrators=FEW)
            rows.append(
                [
                    *(f"{open_runs:,}", f"{partitions:,}", f"{size.open_runs:,.0f}"),
                    *(_bytes(size.checkpoint_bytes), _seconds(size.restore_s)),
                    *(_bytes(few.process_bytes), _seconds(few.process_restore_s)),
                ]
            )
    heads = ["open runs", "partitions", "in one partition", "its checkpoint", "restored in"]
    table = _table([*heads, f"memory of one of {FEW} orchestrators", "restored by one successor in"], rows)
    note = (
        f"Measured: {costs.open_run_bytes:,.0f} bytes an open run in memory ({_made(state)}); on the log"
        f" {costs.checkpoint_bytes:,.0f}, and {costs.restore_us:,.0f} µs until it lives again after a kill, tail and"
        f" all ({_made(recovery)}). A graceful hand-over leaves no tail."
    )
    return f"{note}\n\n{table}"


def _groups(bodies: Bodies) -> str:
    rows = []
    for agents in AGENTS:
        for partitions in PARTITIONS:
            size = group_size(
                agents=agents, partitions=partitions, workers=partitions, brokers=1, replication=REPLICATION
            )
            cells = [f"{agents}", f"{partitions:,}", f"{size.partitions:,}", f"{size.brokers_min:,}"]
            rows.append([*cells, f"{size.coordinator_requests_per_s:,.0f}"])
    heads = ["agents", "partitions", "partitions of all topics", "brokers at least", "coordinator requests/s"]
    note = (
        f"With {REPLICATION} copies, at most {REPLICAS_PER_BROKER_MAX:,} on a broker, and as many busy workers of an"
        f" agent as it has partitions, each {MEMBER_REQUESTS_PER_S:g} requests a second. Above about"
        f" {COORDINATOR_REQUESTS_PER_S:,} a second (assumed, not measured) one broker is the limit of that agent:"
        f" {COORDINATOR_REQUESTS_PER_S / MEMBER_REQUESTS_PER_S:,.0f} workers."
    )
    return f"{note}\n\n{_table(heads, rows)}"


def _one_key(bodies: Bodies) -> str:
    costs = _elsewhere(source(bodies))
    layout = Layout(machines=10, cores=CORES, partitions=100, orchestrators=100, workers=100, keys=1)
    rows = []
    for wait_ms in (0, *WAITS_MS):
        slowest = limits(costs, layout._replace(wait_ms=wait_ms, lanes=100_000))[0]
        rows.append([f"{wait_ms:,} ms", _round(slowest.runs_per_s), slowest.station])
    hot = _round(1e6 / costs.orchestrator_us)
    note = (
        f"All events of one run, and all runs of one partition, pass one orchestrator: {hot} runs/s a partition. In the"
        f" table the runs are spread over {layout.machines} machines and {layout.orchestrators} orchestrators: they"
        " share nothing but the key."
    )
    return f"{note}\n\n{_table(['a task takes', 'runs/s of one key', 'limit'], rows)}"


BLOCKS: Final[Mapping[str, Callable[[Bodies], str]]] = {
    "costs": _costs,
    "checked": _checked,
    "sizing": _sizing,
    "lanes": _lanes,
    "state": _state,
    "groups": _groups,
    "key": _one_key,
}


# ------------------------------------------------------------------------------------------------------------ words


def _elsewhere(options: Source) -> Costs:
    """Costs on machines of their own: whoever asks is not among them, and an embedded file is no broker."""
    costs = options.costs._replace(client_us=0.0)
    return costs if options.body["log"] == "kafka" else costs._replace(log_records_per_s=None)


def _source_note(options: Source) -> str:
    if options.body["log"] == "kafka" and options.costs.broker_us:
        return f"Costs: {_made(options.body)}."
    return (
        f"Costs: {_made(options.body)}. **No broker's CPU time is in them**, so the real limit of the cores is lower:"
        " `python -m bench run1 --broker` measures it."
    )


def _made(body: Body) -> str:
    machine = body["machine"]
    load = f"load {machine.get('load_1m', '?')}"
    return f"`{body['command']}`, commit {body['commit'] or 'unknown'}, {machine['cores']} cores, {load}"


def _known(number: float | None) -> str:
    return _round(number) if number else "not measured"


def _round(number: float) -> str:
    return f"{significant(number, 3):,}"


def _bytes(number: float) -> str:
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("KB", 1e3)):
        if number >= size:
            return f"{significant(number / size, 2):,} {unit}"
    return f"{number:,.0f} B"


def _seconds(number: float) -> str:
    return f"{number:,.2f} s" if number < 10 else f"{number:,.0f} s"


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


def main() -> None:
    """Command line; exit status 1 when the page cannot be made, or differs with --check."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.scaling_page", description="numbers of docs/guide/scaling.md"
    )
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the results")
    parser.add_argument("--page", type=Path, default=PAGE, help="the page whose blocks are made anew")
    parser.add_argument("--check", action="store_true", help="write nothing; fail if the page differs")
    given = parser.parse_args()
    try:
        before = given.page.read_text("utf-8")
        after = filled(before, results(given.results))
    except (MeshError, FileNotFoundError) as error:
        sys.exit(f"error: {error}")
    if given.check:
        sys.exit(f"{given.page} differs from the results; run `python -m bench.scaling_page`" if before != after else 0)
    given.page.write_text(after, "utf-8")
    print(given.page)


if __name__ == "__main__":
    main()
