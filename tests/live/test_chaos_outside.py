"""The judge of the outside ledger can fail: each fault, planted among honest records, is named. Clocks really move."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mesh.app.wiring import load_topology
from mesh.core.ingress.admission import admit
from mesh.core.protocol.record import StoredRecord
from tests.live.chaos.outside import (
    AGENTS,
    POISONS,
    TYPE,
    Acked,
    Headers,
    Seen,
    consume,
    judge,
    record,
    run_of,
)

TOPIC, OUTCOMES, DEAD, ANSWERS = "chaos.orders", "chaos.outcomes", "chaos.dead", "chaos.answers"
TOPOLOGY = Path(__file__).parent / "chaos" / "topology.yaml"
NUMBERS = (0, 1, 2, 99, 199, 299, 399)
Lines = list[dict[str, Any]]


def acked() -> list[Acked]:
    return [Acked(record(n), 0.0, (TOPIC, 0, n)) for n in NUMBERS]


def seen() -> list[Seen]:
    found: list[Seen] = []
    for sent, _, place in acked():
        headers: Headers = sent.headers
        found.append(Seen(place, sent.key, sent.value, headers))
        if sent.poison:
            where = {"topic": TOPIC, "partition": "0", "offset": str(place[2])}
            added = [(f"__dlq.errors.{name}", text.encode()) for name, text in where.items()]
            added += [("mesh-dlq-id", sent.id.encode()), ("mesh-dlq-reason", POISONS[sent.poison].encode())]
            if sent.poison == "header":
                found.append(Seen((DEAD, 0, place[2]), sent.key, None, [*added, ("mesh-dlq-omitted", b"too large")]))
            else:
                found.append(Seen((DEAD, 0, place[2]), sent.key, sent.value, [*headers, *added]))
            continue
        run = run_of(TOPIC, sent)
        for topic, kind, body in (
            (OUTCOMES, b"outcome", {"request": {"ids": [sent.id]}, "ending": "completed"}),
            (ANSWERS, b"egress", {"id": sent.id}),
        ):
            own = [("ce_id", b"e-" + sent.key), ("ce_meshkind", kind), ("ce_correlationid", run.encode())]
            found.append(Seen((topic, 0, place[2]), run.encode(), json.dumps(body).encode(), own))
    return found


def effects() -> list[str]:
    return [f"{agent}:{entry.sent.id}" for agent in AGENTS for entry in acked() if not entry.sent.poison]


class Recorded:
    """A door that only reads what lies there."""

    async def put(self, topic: str, records: object) -> list[Any]:
        raise AssertionError(f"nothing is written to {topic}")

    async def read(self, topic: str) -> list[Seen]:
        return [found for found in seen() if found.place[0] == topic]


@pytest.fixture
async def lines(tmp_path: Path) -> Lines:
    await consume(Recorded(), (TOPIC, OUTCOMES, DEAD, ANSWERS), tmp_path / "seen")
    return [json.loads(line) for line in (tmp_path / "seen").read_text().splitlines()]


def of(lines: Lines, topic: str, id: int) -> dict[str, Any]:
    return next(line for line in lines if line["place"] == [topic, 0, id])


async def test_nothing_is_wrong_with_an_honest_log(lines: Lines) -> None:
    found = judge(acked(), lines, effects())
    assert (found["wrong"], found["good"], found["poison"], found["lost"]) == ([], 3, 4, 0)


def again(line: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {**line, "place": [line["place"][0], 1, 0], **changes}


PLANTED: dict[str, Callable[[Lines], object]] = {
    "never ended: 1: o-1": lambda found: found.remove(of(found, OUTCOMES, 1)),
    "ended twice: 1: o-1": lambda found: found.append(again(of(found, OUTCOMES, 1), ce_id="another")),
    "did not complete: 1: o-2 (failed)": lambda found: of(found, OUTCOMES, 2).update(ending="failed"),
    "never left the mesh: 1: o-0": lambda found: found.remove(of(found, ANSWERS, 0)),
    "left under several ids: 1: o-0": lambda found: found.append(again(of(found, ANSWERS, 0), ce_id="another")),
    "poison that became a run: 1: o-99": lambda found: found.append(again(of(found, OUTCOMES, 1), ids=["o-99"])),
    "poison that is no dead letter: bytes o-99": lambda found: found.remove(of(found, DEAD, 99)),
    "other bytes: bytes o-99": lambda found: of(found, DEAD, 99).update(digest="another"),
    "other bytes: header o-199": lambda found: of(found, TOPIC, 199).update(digest="another"),
    "other bytes: size o-399": lambda found: (
        of(found, DEAD, 399)["dlq"].update({"mesh-dlq-omitted": "too large"})
        or of(found, DEAD, 399).update(digest="another")
    ),
    "reason bad_id, expected wrong_topic: type o-299": lambda found: of(found, DEAD, 299)["dlq"].update(
        {"mesh-dlq-reason": "bad_id"}
    ),
    "two dead letters: type o-299": lambda found: found.append(
        again(of(found, DEAD, 299), dlq={**of(found, DEAD, 299)["dlq"], "mesh-dlq-id": "another"})
    ),
    "a good record is a dead letter": lambda found: found.append(
        again(of(found, DEAD, 99), dlq={**of(found, DEAD, 99)["dlq"], "__dlq.errors.offset": "1"})
    ),
}


@pytest.mark.parametrize("text", PLANTED)
async def test_what_must_not_be_is_named(text: str, lines: Lines) -> None:
    PLANTED[text](lines)
    wrong = judge(acked(), lines, effects())["wrong"]
    assert len(wrong) == 1
    assert text in wrong[0]


@pytest.mark.parametrize("agent", AGENTS)
async def test_a_missing_effect_is_named(agent: str, lines: Lines) -> None:
    done = [effect for effect in effects() if effect != f"{agent}:o-1"]
    assert judge(acked(), lines, done)["wrong"] == [f"without the effect of {agent}: 1: o-1"]


def test_the_run_of_each_form_is_that_of_the_protocol() -> None:
    topology = load_topology(str(TOPOLOGY))
    for sent, _, place in acked():
        admitted = admit(StoredRecord(*place, 0, sent.key, sent.value, sent.headers), topology)
        if sent.poison:
            assert getattr(admitted, "code", None) == POISONS[sent.poison]
        else:
            assert (getattr(admitted, "run_id", None), admitted.type) == (run_of(TOPIC, sent), TYPE)  # type: ignore[union-attr]


CLOCKS = {"clock:3600": [3_600, 3_600], "clock:-86400": [-86_400, -86_400], "step:60": [0, 60]}


@pytest.mark.parametrize("point", CLOCKS)
def test_a_clock_that_is_wrong_is_wrong_from_its_start_or_from_two_seconds_on(point: str) -> None:
    code = f"""
import time
from tests.live.chaos.failpoint import STEP_AFTER_S, install
right, began = time.time(), time.monotonic()
install({point!r})
print(round(time.time() - right, -1))
while time.monotonic() <= began + STEP_AFTER_S:
    time.sleep(0.01)
print(round(time.time_ns() / 1e9 - time.monotonic() + began - right, -1))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ)
    assert [float(text) for text in done.stdout.split()] == CLOCKS[point]
