"""Write the results of a comparison in the project's format (bench/report.py): one for each peer."""

from collections.abc import Mapping, Sequence
from typing import Any

from bench.peers.compare import Measured, Sample
from bench.peers.setup import REQUIREMENTS, RESTATE_PACKAGE
from bench.report import LESS, NONE, Figure, Result, middle

SKELETON = "skeleton"
"""The side that is a ceiling and not a peer (bench/peers/skeleton_load.py)."""
WHAT = {
    "hop": "consume → validate → handler → publish → commit",
    "run1": "one-step orchestrated runs",
    "run3": "orchestrated runs of three steps",
}
RUNS_HOW = (
    "64 runs in flight, asked for by the peer's own process; from a tenth of the outcomes (or 1.5 s after the first) "
    "to the last, or as long as is measured."
)
HOW = {
    "hop": "The same messages lie on a topic of six partitions before one process starts; answers are counted on the "
    "topic they go to, from a tenth of them (or 1.5 s after the first) to the last, or as long as is measured.",
    "run1": RUNS_HOW,
    "run3": RUNS_HOW,
}
SKELETON_HOW = (
    "Bursts as of the mesh, by a client that uses the library alone, against bench/peers/skeleton.py: the same topics, "
    "records, keys and headers a run as the mesh in its plain form, acknowledged before committed, and no logic."
)
OURS_HOW = (
    "As `mesh bench` has it: bursts, each from its first request to its last outcome, one orchestrator and one worker "
    "process."
)
IN_TURN = " Ours is measured in turn with the peers in the same run; its ratio is taken round by round."
KILLED = " Killed with SIGKILL in the middle of slow messages, at the worst moment seen, and what was lost counted."


def versions() -> dict[str, str]:
    """The peers' own, as pinned."""
    lines = [line for line in REQUIREMENTS.read_text().splitlines() if "==" in line]
    names = {"aiokafka", "confluent-kafka", "faststream", "faust-streaming", "dbos", "restate-sdk", "pydantic"}
    pinned = {name: version for name, _, version in (line.partition("==") for line in lines)}
    package, _, version = RESTATE_PACKAGE.rpartition("@")
    return {name: pinned[name] for name in sorted(names)} | {package: version}


def subject(name: str) -> str:
    """A peer's name as part of a file's name: `FastStream, 64 workers` → `faststream-64-workers`."""
    return "-".join(name.lower().replace(",", "").split())


def results(
    workload: str,
    ours: Mapping[str, str],
    measured: Measured[Sample],
    verdicts: Mapping[str, Mapping[str, Any]],
    settings: Mapping[str, Any],
    command: str,
) -> list[Result]:
    """One for each side that was measured or killed; beside each peer's figures stand those of ours (name → kind of
    log) and the ratio. A peer that orchestrates runs has its own store, so its result names no log."""
    found = []
    for name in dict.fromkeys([*measured.samples, *measured.failed, *verdicts]):
        log = "kafka" if workload == "hop" else "none"
        samples = measured.samples.get(name, [])
        figures = _figures(workload, samples, {} if name in ours else ours, measured) if samples else []
        settings_of_run = {**settings, "peers": versions()}
        if name in measured.failed:
            settings_of_run["failed"] = measured.failed[name]
        verdict = verdicts.get(name)
        safe = None
        if verdict is not None:
            settings_of_run["kill_9"] = dict(verdict)
            safe = verdict.get("safe")
        beside = any(figure.name == "mesh_is_times" for figure in figures)
        how_with_peer = OURS_HOW if name in ours and workload != "hop" else HOW[workload]
        if name == SKELETON:
            how_with_peer, log = SKELETON_HOW, "kafka"
        how = how_with_peer + (IN_TURN if beside else "") + (KILLED if safe is not None else "")
        found.append(Result(workload, WHAT[workload], how, log, figures, settings_of_run, command, subject(name), safe))
    return found


def _figures(
    workload: str, samples: Sequence[Sample], ours: Mapping[str, str], measured: Measured[Sample]
) -> list[Figure]:
    noun = "hops" if workload == "hop" else "runs"
    figures = [
        middle(f"{noun}_per_s", [s.per_s for s in samples], f"{noun}/s"),
        middle(f"cpu_us_per_{noun[:-1]}", [s.cpu_us for s in samples], "µs", LESS),
    ]
    for name, log in ours.items():
        if base := measured.samples.get(name):
            times = [a.per_s / b.per_s for a, b in zip(base, samples, strict=True)]
            figures.append(middle(f"mesh_{noun}_per_s", [s.per_s for s in base], f"{noun}/s", NONE, log=log))
            figures.append(middle("mesh_is_times", times, "x", NONE, log=log))
            cpu = [b.cpu_us / a.cpu_us for a, b in zip(base, samples, strict=True)]
            figures.append(middle("mesh_is_times_by_cpu", cpu, "x", NONE, log=log))
    return figures
