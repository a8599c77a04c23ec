"""The judge: reads the ledger, the side effects and every topic from the beginning, and says what is wrong.

    python -m tests.live.chaos.checker --log URL --topology FILE --ledger FILE --effects FILE

A process of its own that took no part. Prints one JSON document: figures for each phase, and `wrong`, sentences that
must not be there. It believes the files on disk and the topics, and no service.
"""

import argparse
import asyncio
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from bench.kills import records_of
from mesh.adapters.clock import SystemClock
from mesh.adapters.ports import Log
from mesh.app.wiring import load_topology, open_log
from mesh.core.ingress.admission import REJECTED_TYPE
from mesh.core.protocol.codec import plain_headers
from mesh.core.protocol.record import Record, TopicPartition
from mesh.core.run.state import COMPLETED
from mesh.core.state.partition_state import Partition
from mesh.core.topology.model import Topology
from mesh.core.verification.report import VerificationReport
from mesh.runtime.checkpoint_store import read_checkpoints
from mesh.settings import Settings
from tests.live.chaos.ledger import Entry, read
from tests.log_check import ACKNOWLEDGED, UNKNOWN, Submission
from tests.log_check import check as verify

TREE_TASKS, TREE_RESULTS = 10, 6
ODD = "!"
"""Phases of runs that are no trees hold it: `F35!bomb`."""
SHOWN_MAX = 5


class Evidence(NamedTuple):
    """The records of the log."""

    inbox: Sequence[Record]
    tasks: Sequence[Record]
    outcomes: Sequence[Record]
    dead: Sequence[Record]
    egress: Sequence[Record]
    ingress: Sequence[Record]


class Effect(NamedTuple):
    """One call of an agent."""

    agent: str
    task: str
    attempt: int
    pid: int
    at_s: float
    note: str


def effects_of(path: Path) -> list[Effect]:
    """Lines of the file of side effects."""
    found = []
    for line in path.read_text().splitlines() if path.exists() else ():
        agent, task, attempt, pid, at_s, note = line.split(" ", 5)
        found.append(Effect(agent, task, int(attempt), int(pid), float(at_s), note))
    return found


async def gather(log: Log, topology: Topology) -> Evidence:
    """Read everything."""
    tasks = [record for name in topology.agents for record in await records_of(log, topology.tasks(name))]
    egress = [r for rule in topology.topics.values() if rule.egress for r in await records_of(log, rule.name)]
    ingress = [r for rule in topology.topics.values() if rule.ingress for r in await records_of(log, rule.name)]
    own = [await records_of(log, name) for name in (topology.inbox, topology.outcomes, topology.dead)]
    return Evidence(own[0], tasks, own[1], own[2], egress, ingress)


def header(record: Record, name: str) -> str:
    """The last header of a name, as text."""
    values = [value or b"" for found, value in plain_headers(record.headers) if found == name]
    return (values[-1] if values else b"").decode("utf-8", "replace")


def shown(names: Iterable[str]) -> str:
    """The first few, and how many there are."""
    listed = sorted(names)
    return f"{len(listed)}: {', '.join(listed[:SHOWN_MAX])}{', …' if len(listed) > SHOWN_MAX else ''}"


class Judge:
    """Collects figures and what is wrong."""

    def __init__(self, evidence: Evidence, asked: dict[str, Entry], acked: set[str], calls: Sequence[Effect]) -> None:
        self.evidence, self.asked, self.acked, self.calls = evidence, asked, acked, calls
        self.wrong: list[str] = []
        self.phases: dict[str, dict[str, Any]] = {}
        self.bodies: dict[str, dict[str, Any]] = {}

    def judge(self) -> dict[str, Any]:
        """Everything that needs no log any more."""
        self._outcomes()
        self._trees()
        self._phases()
        self._commands()
        self._egress()
        self._dead()
        return {"phases": self.phases, "wrong": self.wrong}

    def _phase_of(self, run: str) -> str:
        return self.asked[run].phase if run in self.asked else "?"

    def _blame(self, what: str, names: Iterable[str]) -> None:
        if listed := list(names):
            self.wrong.append(f"{what}: {shown(listed)}")

    def _outcomes(self) -> None:
        """I1, I2: every acknowledged request ends, once."""
        ends: dict[str, set[str]] = defaultdict(set)
        texts: dict[str, set[bytes]] = defaultdict(set)
        for record in self.evidence.outcomes:
            if header(record, "ce_type") == REJECTED_TYPE:
                continue
            run = (record.key or b"").decode()
            ends[run].add(header(record, "ce_id"))
            texts[run].add(record.value or b"")
            self.bodies.setdefault(run, orjson.loads(record.value or b"{}"))
        self.lost = self.acked - set(ends)
        self.twice = {run for run, ids in ends.items() if len(ids) > 1}
        self._blame("acknowledged and never ended", self.lost)
        self._blame("ended twice", self.twice)
        self._blame("ended without a reason", (run for run, body in self.bodies.items() if unexplained(body)))
        self._blame("ended and never asked", set(ends) - set(self.asked))
        self._blame("copies of an outcome differ", (run for run, copies in texts.items() if len(copies) > 1))

    def _phases(self) -> None:
        copies = Counter(self._phase_of((r.key or b"").decode()) for r in self.evidence.outcomes)
        counted = ("asked", "acked", "lost", "ended_twice", "unexplained", "tasks")
        for run, entry in self.asked.items():
            fresh = {**dict.fromkeys(counted, 0), "endings": {}, "runs": []}
            phase = self.phases.setdefault(entry.phase, fresh)
            phase["asked"] += 1
            phase["acked"] += run in self.acked
            phase["lost"] += run in self.lost or run in self.torn
            phase["ended_twice"] += run in self.twice
            if (body := self.bodies.get(run)) is not None:
                phase["tasks"] += body["tasks"]
                phase["unexplained"] += unexplained(body)
                phase["endings"][body["ending"]] = phase["endings"].get(body["ending"], 0) + 1
                if ODD in entry.phase:
                    phase["runs"].append(brief(body))
        tasks = self._copies(self.evidence.tasks, "ce_id")
        answers = self._copies(self.evidence.inbox, "ce_id")
        effects: dict[str, Counter[str]] = defaultdict(Counter)
        task_runs = {header(r, "ce_meshtask"): header(r, "ce_correlationid") for r in self.evidence.tasks}
        notes: dict[str, list[str]] = defaultdict(list)
        for call in self.calls:
            name = self._phase_of(task_runs.get(call.task, ""))
            effects[name][f"{call.task}:{call.attempt}"] += call.note == "-"
            notes[name] += [call.note] * (call.note != "-")
        for name, phase in self.phases.items():
            phase["outcomes_repeated"] = max(0, copies[name] - sum(phase["endings"].values()))
            phase["tasks_repeated"], phase["answers_repeated"] = tasks[name], answers[name]
            phase["calls"] = sum(effects[name].values())
            phase["calls_repeated"] = sum(n - 1 for n in effects[name].values() if n > 1)
            phase["calls_of_one_task_max"] = max(effects[name].values(), default=0)
            phase["notes"] = notes[name]

    def _copies(self, records: Sequence[Record], id_header: str) -> Counter[str]:
        """Count the repeated records of each phase."""
        seen: set[str] = set()
        again: Counter[str] = Counter()
        for record in records:
            id = f"{record.topic}:{header(record, id_header)}"
            again[self._phase_of(header(record, "ce_correlationid"))] += id in seen
            seen.add(id)
        return again

    def _trees(self) -> None:
        """Check that no task is lost within a run, and that a fault that a mesh should bear fails no run."""
        trees = {
            run: body for run, body in self.bodies.items() if run in self.asked and ODD not in self.asked[run].phase
        }
        failed = {run: body for run, body in trees.items() if body["ending"] != COMPLETED}
        self._blame("did not complete", (f"{run} ({body['ending']}: {why(body)})" for run, body in failed.items()))
        self.torn = {
            run: f"{run} ({body['tasks']} tasks, {len(body['results'])} results)"
            for run, body in trees.items()
            if run not in failed and (body["tasks"], len(body["results"])) != (TREE_TASKS, TREE_RESULTS)
        }
        self._blame(f"completed without its {TREE_TASKS} tasks and {TREE_RESULTS} results", self.torn.values())

    def _commands(self) -> None:
        """I3: all copies of a command are the same, byte for byte. I4: depth is that of the path."""
        said: dict[str, set[tuple[bytes | None, tuple[Any, ...]]]] = defaultdict(set)
        for record in self.evidence.tasks:
            name = f"{record.topic} {header(record, 'ce_id')}"
            said[name].add((record.value, tuple(map(tuple, plain_headers(record.headers)))))
            path = [step for step in header(record, "ce_meshpath").split(",") if step]
            if int(header(record, "ce_meshdepth") or 0) != len(path):
                self.wrong.append(f"depth and path differ: {name}")
        self._blame("copies of a command differ", (name for name, copies in said.items() if len(copies) > 1))
        answered = {header(r, "ce_meshtask") for r in self.evidence.inbox if header(r, "ce_meshkind") == "succeeded"}
        called = {call.task for call in self.calls}
        self._blame("answered and never called", answered - called)

    def _egress(self) -> None:
        """Every result that an outcome names has left the mesh."""
        left = {header(record, "ce_id") for record in self.evidence.egress}
        missing = [
            f"{run} {r['id']}" for run, body in self.bodies.items() for r in body["results"] if r["id"] not in left
        ]
        self._blame("results that never left", missing)

    def _dead(self) -> None:
        """I8: each origin once; what could not be read (and so belongs to no run), byte for byte."""
        origins: dict[tuple[str, int, int], Record] = {
            (r.topic, r.partition, r.offset): r
            for records in (self.evidence.inbox, self.evidence.ingress, self.evidence.tasks)
            for r in records
        }
        ids: dict[str, set[str]] = defaultdict(set)
        for record in self.evidence.dead:
            if not (offset := header(record, "__dlq.errors.offset")):
                continue
            partition = int(header(record, "__dlq.errors.partition"))
            place = (header(record, "__dlq.errors.topic"), partition, int(offset))
            origin = origins.get(place)
            if origin is None:
                self.wrong.append(f"a dead letter of {place}, where nothing is")
            elif not header(record, "mesh-dlq-run"):  # those of a run may be several, one a refused hop
                ids[":".join(map(str, place))].add(header(record, "mesh-dlq-id"))
                if origin.value != record.value and not header(record, "mesh-dlq-omitted"):
                    self.wrong.append(f"the dead letter of {place} has other bytes")
        self._blame("origins with two dead letters", (place for place, found in ids.items() if len(found) > 1))


def brief(body: dict[str, Any]) -> dict[str, Any]:
    """Return the parts of an outcome that criteria use."""
    return {
        "ending": body["ending"],
        "tasks": body["tasks"],
        "results": len(body["results"]),
        "refused": body["refused"],
        "codes": sorted({r["code"] for r in body["refusals"]} | {f["code"] for f in body["failures"]}),
        "failures": len(body["failures"]),
        "usd": body["used"]["usd"],
        "took_ms": body["took_ms"],
    }


def unexplained(body: dict[str, Any]) -> bool:
    """Whether a run that did not complete names no reason."""
    return body["ending"] != COMPLETED and not (body["failures"] or body["refusals"] or body["starved"])


def why(body: dict[str, Any]) -> str:
    """The first trouble of an outcome."""
    troubles = body["failures"] + body["refusals"]
    return f"{troubles[0]['agent']} {troubles[0]['code']} {troubles[0]['message'][:120]}" if troubles else "no reason"


async def lags(log: Log, topology: Topology) -> list[str]:
    """I11: every group stands at the end of its topics."""
    read_by = {f"{topology.prefix}.orchestrator": [topology.inbox]}
    read_by[f"{topology.prefix}.intake"] = [rule.name for rule in topology.topics.values() if rule.ingress]
    read_by |= {f"{topology.prefix}.{name}": [topology.tasks(name)] for name in topology.agents}
    behind = []
    for group, topics in read_by.items():
        for topic in topics:
            committed = await log.committed(group, topic)
            for partition, bounds in (await log.bounds(topic)).items():
                place = committed[partition].offset if partition in committed else 0
                if place != bounds.end:
                    behind.append(f"{group} stands at {place} of {bounds.end} in {topic}:{partition}")
    return behind


def decided_again(
    evidence: Evidence,
    topology: Topology,
    asked: dict[str, Entry],
    acked: set[str],
    committed: dict[TopicPartition, int] | None,
    checkpoints: dict[int, Partition] | None = None,
) -> VerificationReport:
    """The invariants of `mesh verify`: the inbox is decided again and compared with what was published."""
    records: dict[str, list[Record]] = defaultdict(list)
    for record in (record for records in evidence for record in records):
        records[record.topic].append(record)
    ledger = [Submission(run, answer=ACKNOWLEDGED if run in acked else UNKNOWN) for run in asked]
    return verify(topology, records, ledger=ledger, committed=committed, checkpoints=checkpoints or {})


async def places(log: Log, topology: Topology) -> dict[TopicPartition, int]:
    """Return the committed offsets of orchestrators in the inbox and of agents in their tasks."""
    read_by = {f"{topology.prefix}.orchestrator": topology.inbox}
    read_by |= {f"{topology.prefix}.{name}": topology.tasks(name) for name in topology.agents}
    return {
        TopicPartition(topic, partition): commit.offset
        for group, topic in read_by.items()
        for partition, commit in (await log.committed(group, topic)).items()
    }


async def check(log_url: str, topology_path: str, ledger: Path, effects: Path) -> dict[str, Any]:
    """The verdict."""
    topology = load_topology(topology_path)
    log = open_log(Settings(log=log_url, topology=topology_path), client="checker")
    await log.start()
    try:
        evidence = await gather(log, topology)
        behind = await lags(log, topology)
        committed = await places(log, topology)
        standing = await read_checkpoints(log, topology, SystemClock(), [topology])
    finally:
        await log.close()
    asked, acked = read(ledger)
    verdict = Judge(evidence, asked, acked, effects_of(effects)).judge()
    report = decided_again(evidence, topology, asked, acked, committed, standing.states)
    verdict["wrong"] += [*behind, *map(str, (*standing.unreadable, *report.violations[:SHOWN_MAX]))]
    verdict["checked"] = dict(report.checked)
    verdict["records"] = {name: len(records) for name, records in evidence._asdict().items()}
    return verdict


def main() -> None:
    """Command line. Always exit status 0: the verdict is what is printed."""
    parser = argparse.ArgumentParser(description="judge a fault test")
    for name in ("log", "topology", "ledger", "effects"):
        parser.add_argument(f"--{name}", required=True)
    given = parser.parse_args()
    print(json.dumps(asyncio.run(check(given.log, given.topology, Path(given.ledger), Path(given.effects)))))


if __name__ == "__main__":
    main()
