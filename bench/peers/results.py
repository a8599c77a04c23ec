"""What came of a comparison, in the project's format (bench/report.py): one result for each peer."""

from collections.abc import Mapping
from typing import Any

from bench.peers.compare import Measured
from bench.peers.setup import REQUIREMENTS, RESTATE_PACKAGE
from bench.report import LESS, NONE, Figure, Result, middle

WHAT = {
    "hop": "consume → validate → handler → publish → commit",
    "run1": "one-step orchestrated runs",
    "run3": "orchestrated runs of three steps",
}
HOW = {
    "hop": "The same messages lie on a topic of six partitions before one process starts; answers are counted on the "
    "topic they go to, from a tenth of them to the last.",
    "run1": "64 runs in flight, asked for by the peer's own process; from a tenth of the outcomes to the last.",
    "run3": "64 runs in flight, asked for by the peer's own process; from a tenth of the outcomes to the last.",
}
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
    log: str,
    ours: str,
    measured: Measured,
    verdicts: Mapping[str, Mapping[str, Any]],
    settings: Mapping[str, Any],
    command: str,
) -> list[Result]:
    """One for each peer that was measured or killed, ours not among them: its figures stand beside each peer's."""
    noun = "hops" if workload == "hop" else "runs"
    base = measured.samples.get(ours, [])
    found = []
    for name in [n for n in dict.fromkeys([*measured.samples, *verdicts]) if n != ours]:
        samples = measured.samples.get(name, [])
        figures: list[Figure] = []
        if samples:
            figures.append(middle(f"{noun}_per_s", [s.per_s for s in samples], f"{noun}/s"))
            figures.append(middle(f"cpu_us_per_{noun[:-1]}", [s.cpu_us for s in samples], "µs", LESS))
        if samples and base:
            times = [a.per_s / b.per_s for a, b in zip(base, samples, strict=True)]
            figures.append(middle(f"mesh_{noun}_per_s", [s.per_s for s in base], f"{noun}/s", NONE))
            figures.append(middle("mesh_is_times", times, "x", NONE))
        verdict = verdicts.get(name)
        told = {**settings, "peers": versions()}
        safe = None
        if verdict is not None:
            told["kill_9"] = dict(verdict)
            safe = verdict.get("safe")
        how = HOW[workload] + (IN_TURN if samples and base else "") + (KILLED if safe is not None else "")
        found.append(Result(workload, WHAT[workload], how, log, figures, told, command, subject(name), safe))
    return found
