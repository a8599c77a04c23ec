"""The checker of the fault tests can fail: each thing that must not be, planted among honest records, is named."""

from collections.abc import Callable, Sequence
from pathlib import Path

import orjson
import pytest

from mesh.core.protocol.codec import plain_headers
from mesh.core.protocol.record import Headers, Record, StoredRecord
from mesh.core.topology.model import Topology
from mesh.testing import MeshTest
from tests.live.chaos.checker import Effect, Evidence, Judge, decided_again, effects_of, gather, header, lags
from tests.live.chaos.ledger import Entry, Ledger, read
from tests.live.chaos.supervisor import Footprint, leaks

TREES = 3
TOPOLOGY = Path(__file__).parent / "chaos" / "topology.yaml"
Plant = Callable[[Evidence], Evidence]


class Honest:
    """A mesh that did its work, as the checker finds it."""

    def __init__(self, evidence: Evidence, asked: dict[str, Entry], calls: Sequence[Effect]) -> None:
        self.evidence, self.asked, self.calls = evidence, asked, calls
        self.topology: Topology

    def wrong(self, plant: Plant | None = None, *, acked: set[str] | None = None) -> list[str]:
        """Return the complaints of the checker."""
        evidence = plant(self.evidence) if plant else self.evidence
        found: list[str] = Judge(evidence, self.asked, acked or set(self.asked), self.calls).judge()["wrong"]
        return found


@pytest.fixture
async def honest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Honest:
    monkeypatch.setattr("tests.live.chaos.stubs.EFFECTS", str(tmp_path / "effects"))
    async with MeshTest(str(TOPOLOGY)) as mesh:
        runs = [await mesh.publish("chaos.ask", {"id": f"a{n}"}) for n in range(TREES)]
        bad = {"id": "b", "how": "bomb"}
        runs.append(await mesh.publish("chaos.odd", bad))
        for run in runs:
            await run.outcome(timeout_s=30)
        asked = {run.id: Entry(run.id, "F!bomb" if run is runs[-1] else "F", 0.0) for run in runs}
        made = Honest(await gather(mesh.log, mesh.topology), asked, effects_of(tmp_path / "effects"))
        made.topology = mesh.topology
        return made


def changed(record: Record, *, value: bytes | None = None, **headers: str) -> Record:
    named = {name.replace("__", "-"): text.encode() for name, text in headers.items()}
    kept = [(name, named.get(name, old)) for name, old in plain_headers(record.headers)]
    place = (record.topic, record.partition, record.offset, record.timestamp)
    return StoredRecord(*place, record.key, record.value if value is None else value, kept)


def outcome_of(evidence: Evidence, type: str = "mesh.run.completed") -> Record:
    return next(record for record in evidence.outcomes if header(record, "ce_type") == type)


def edited(record: Record, **fields: object) -> Record:
    return changed(record, value=orjson.dumps({**orjson.loads(record.value or b""), **fields}))


def instead(records: Sequence[Record], old: Record, *new: Record) -> list[Record]:
    return [record for record in records if record is not old] + list(new)


def outcome(change: Callable[[Record], Sequence[Record]], type: str = "mesh.run.completed") -> Plant:
    """Plant records in the place of an outcome."""

    def plant(evidence: Evidence) -> Evidence:
        old = outcome_of(evidence, type)
        return evidence._replace(outcomes=instead(evidence.outcomes, old, *change(old)))

    return plant


async def test_an_honest_mesh_is_not_blamed(honest: Honest) -> None:
    assert honest.wrong() == []
    judged = Judge(honest.evidence, honest.asked, set(honest.asked), honest.calls).judge()["phases"]
    assert judged["F"] | {"runs": []} == {
        "asked": 3,
        "acked": 3,
        "lost": 0,
        "ended_twice": 0,
        "unexplained": 0,
        "tasks": 30,
        "runs": [],
        "endings": {"completed": 3},
        "outcomes_repeated": 0,
        "tasks_repeated": 0,
        "answers_repeated": 0,
        "calls": 30,
        "calls_repeated": 0,
        "calls_of_one_task_max": 1,
        "notes": [],
    }
    assert [run["codes"] for run in judged["F!bomb"]["runs"]] == [["fanout"]]
    assert judged["F!bomb"]["notes"] == ["bomb"]


async def test_what_was_asked_without_an_answer_may_end_or_not(honest: Honest) -> None:
    run = (outcome_of(honest.evidence).key or b"").decode()
    assert honest.wrong(outcome(lambda _: ()), acked=set(honest.asked) - {run}) == []


def said(record: Record) -> tuple[bytes | None, Headers]:
    return record.value, record.headers


def dead(origin: Record, value: bytes, id: str = "x") -> Record:
    place = {"topic": origin.topic, "partition": str(origin.partition), "offset": str(origin.offset)}
    headers = [(f"__dlq.errors.{name}", text.encode()) for name, text in place.items()]
    return StoredRecord("dead", 0, 0, 0, None, value, [*headers, ("mesh-dlq-id", id.encode())])


PLANTED: dict[str, tuple[Plant, str]] = {
    "an outcome is missing": (outcome(lambda _: ()), "acknowledged and never ended"),
    "a run ended twice": (outcome(lambda r: (r, changed(r, ce_id="other"))), "ended twice"),
    "two copies of an outcome differ": (outcome(lambda r: (r, edited(r, took_ms=-1))), "copies of an outcome differ"),
    "a task is missing in a run": (outcome(lambda r: (edited(r, tasks=9),)), "without its 10 tasks"),
    "a result is missing in a run": (
        outcome(lambda r: (edited(r, results=orjson.loads(r.value or b"")["results"][1:]),)),
        "and 6 results",
    ),
    "a run failed": (outcome(lambda r: (edited(r, ending="failed", starved=["x"]),)), "did not complete"),
    "a run ended without a reason": (
        outcome(lambda r: (edited(r, refusals=[]),), "mesh.run.stopped"),
        "ended without a reason",
    ),
    "another client's run": (
        lambda e: e._replace(outcomes=[*e.outcomes, StoredRecord("o", 0, 9, 0, b"stranger", *said(outcome_of(e)))]),
        "ended and never asked",
    ),
    "two copies of a command differ": (
        lambda e: e._replace(tasks=[*e.tasks, changed(e.tasks[0], value=b"{}")]),
        "copies of a command differ",
    ),
    "a depth that is not that of the path": (
        lambda e: e._replace(tasks=[*e.tasks[1:], changed(e.tasks[0], ce_meshdepth="7")]),
        "depth and path differ",
    ),
    "an answer without work": (
        lambda e: e._replace(
            inbox=[*e.inbox, changed(next(r for r in e.inbox if header(r, "ce_meshtask")), ce_meshtask="ghost")]
        ),
        "answered and never called",
    ),
    "a result that never left": (lambda e: e._replace(egress=e.egress[1:]), "results that never left"),
    "a dead letter with other bytes": (
        lambda e: e._replace(dead=[*e.dead, dead(e.inbox[0], b"other")]),
        "has other bytes",
    ),
    "a dead letter of nothing": (
        lambda e: e._replace(dead=[*e.dead, dead(StoredRecord("nowhere", 0, 0, 0, None, b"", []), b"")]),
        "where nothing is",
    ),
    "two dead letters of one origin": (
        lambda e: e._replace(dead=[*e.dead, *(dead(e.inbox[0], e.inbox[0].value or b"", id) for id in ("x", "y"))]),
        "origins with two dead letters",
    ),
}


async def test_whatever_is_planted_is_named(honest: Honest) -> None:
    for name, (plant, sentence) in PLANTED.items():
        said = honest.wrong(plant)
        assert any(sentence in line for line in said), (name, said)


async def test_what_was_decided_and_not_published_is_named_when_it_is_decided_again(honest: Honest) -> None:
    def said(evidence: Evidence) -> list[str]:
        report = decided_again(evidence, honest.topology, honest.asked, set(honest.asked), None)
        return [violation.invariant for violation in report.violations]

    assert said(honest.evidence) == []
    assert "I6" in said(honest.evidence._replace(tasks=honest.evidence.tasks[1:]))
    assert "I1" in said(honest.evidence._replace(inbox=honest.evidence.inbox[1:]))


async def test_a_group_that_stands_behind_is_named() -> None:
    async with MeshTest(str(TOPOLOGY)) as mesh:
        run = await mesh.publish("chaos.ask", {"id": "a"})
        await run.outcome(timeout_s=30)
        # Only the intake reads the ingress topics here, and it has nothing to commit.
        said = await lags(mesh.log, mesh.topology)
        assert all("split" not in line or "stands at" in line for line in said)
        topic = mesh.topology.tasks("split")
        bounds = await mesh.log.bounds(topic)
        (partition,) = (p for p, b in bounds.items() if b.end)

        async def committed() -> bool:
            places = await mesh.log.committed(f"{mesh.topology.prefix}.split", topic)
            return partition in places and places[partition].offset == 1

        while not await committed():
            pass
        assert not any(topic in line for line in await lags(mesh.log, mesh.topology))


def test_the_ledger_distinguishes_acknowledged_requests_from_sent_ones(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.jsonl")
    first, second = Entry("r1", "F01", 1.5), Entry("r2", "F02!how", 2.5)
    ledger.asked([first, second])
    ledger.acked(["r1"])
    assert read(ledger.path) == ({"r1": first, "r2": second}, {"r1"})
    ledger.close()


def test_what_a_process_keeps_from_one_rest_to_a_later_one_is_reported() -> None:
    young, old = Footprint(10, 50, 20, 5), Footprint(130, 80, 22, 6)
    assert leaks(("worker",), [young, old, Footprint(900, 130, 25, 7)]) == []
    (memory,) = leaks(("worker", "--agent", "odd"), [young, old, Footprint(900, 137, 25, 7)])
    assert memory == ("I12 mesh up worker --agent odd: 80 MB after 130 s, 137 after 900 s; expected at most 136")
    assert leaks(("orchestrator",), [young, old, Footprint(900, 137, 25, 7)]) == []  # it remembers runs
    files, threads = leaks(("intake",), [young, Footprint(60, 50, 33, 14)])
    assert "20 files" in files
    assert "5 threads" in threads
