"""One recorded scenario whose numbers are computed by hand in the tests.

0 ms     run-1 and run-2 are requested
1,000    plan of run-1 succeeded after 400 ms, of which it waited 100; 200 tokens, 0.002 USD
1,500    plan of run-2 failed after 900 ms (timed out)
2,500    plan of run-2 succeeded at attempt 2, after 500 ms
3,000    ship of run-1 failed after 1,600 ms
4,000    hand of run-1, its fallback, succeeded after 800 ms
4,100    run-1 completed, decided after 100 ms
12,000   ship of run-2 failed for good after 2,000 ms, hand failed at 13,000 after 700 ms
13,050   run-2 failed with a refusal of a loop, and with a dead letter; an operator redrives it at 14,000
"""

from collections.abc import Sequence

import orjson

from mesh.core.protocol.codec import event_headers
from mesh.core.protocol.event import (
    FAILED,
    OUTCOME,
    REDRIVEN,
    REQUESTED,
    SUCCEEDED,
    Event,
    Fault,
    Usage,
    rfc3339,
)
from mesh.core.protocol.record import Record, StoredRecord, TopicPartition
from tests.builders import AT_MS, agent, event, topology

MESH = topology(
    plan="ask -> planned",
    ship=agent("planned -> shipped", fallback=("hand",)),
    hand=agent("hand.it -> shipped"),
)
BEGIN_MS = AT_MS - AT_MS % 10_000
"""Start of the first window."""
INBOX, OUTCOMES, DEAD = (TopicPartition(topic, 0) for topic in ("mesh.inbox", "mesh.outcomes", "mesh.dead"))


def answer(
    run: str,
    agents: str,
    at_ms: int,
    took_ms: int,
    *,
    code: str = "",
    waited_ms: int = 0,
    attempt: int = 1,
    words: str = "",
) -> Event:
    """The answer of the last of these agents, `took_ms` after its task was stored."""
    path = tuple(agents.split(">"))
    return event(
        FAILED if code else SUCCEEDED,
        id=f"{run}:{agents}:{attempt}",
        type="planned" if path[-1] == "plan" and not code else "ask" if path[-1] == "plan" else "shipped",
        run_id=run,
        data=orjson.dumps({"text": words}),
        at_ms=BEGIN_MS + at_ms,
        time=rfc3339(BEGIN_MS + at_ms - took_ms),
        agent=path[-1],
        path=path,
        depth=len(path),
        task_id=f"{run}:{agents}",
        attempt=attempt,
        waited_ms=waited_ms,
        fault=Fault(code, "it broke") if code else None,
        usage=Usage(2_000, 200) if words else Usage(),
    )


def outcome(run: str, ending: str, at_ms: int, ended_ms: int, refusals: Sequence[str] = ()) -> Event:
    """The outcome of a run, stored at `at_ms`."""
    body = {
        "ending": ending,
        "opened": rfc3339(BEGIN_MS),
        "ended": rfc3339(BEGIN_MS + ended_ms),
        "took_ms": ended_ms,
        "refusals": [{"code": code, "agent": "ship"} for code in refusals],
    }
    data = orjson.dumps(body)
    return event(OUTCOME, id=f"{run}:end", type=f"mesh.run.{ending}", run_id=run, data=data, at_ms=BEGIN_MS + at_ms)


def stored(place: TopicPartition, events: Sequence[Event]) -> list[Record]:
    """These events as the records of a partition."""
    return [
        StoredRecord(*place, offset, each.at_ms, each.run_id.encode(), each.data, event_headers(each))
        for offset, each in enumerate(events)
    ]


def scenario() -> dict[TopicPartition, list[Record]]:
    """The records of the scenario."""
    inbox = [
        event(REQUESTED, run_id="run-1", id="r1", data=b'{"text":"ship the red box"}', at_ms=BEGIN_MS),
        event(REQUESTED, run_id="run-2", id="r2", data=b'{"text":"ship the blue box"}', at_ms=BEGIN_MS),
        answer("run-1", "plan", 1_000, 400, waited_ms=100, words="ship the red box"),
        answer("run-2", "plan", 1_500, 900, code="timed_out"),
        answer("run-2", "plan", 2_500, 500, attempt=2),
        answer("run-1", "plan>ship", 3_000, 1_600, code="exception"),
        answer("run-1", "plan>hand", 4_000, 800),
        answer("run-2", "plan>ship", 12_000, 2_000, code="exception"),
        answer("run-2", "plan>hand", 13_000, 700, code="exception"),
        event(REDRIVEN, run_id="run-2", id="d1", at_ms=BEGIN_MS + 14_000),
    ]
    outcomes = [
        outcome("run-1", "completed", 4_100, 4_000),
        outcome("run-2", "failed", 13_050, 13_000, refusals=("cycle",)),
    ]
    letter = [("mesh-dlq-reason", b"exception"), ("mesh-dlq-agent", b"hand")]
    dead: list[Record] = [StoredRecord(*DEAD, 0, BEGIN_MS + 13_060, b"run-2", b"{}", letter)]
    return {INBOX: stored(INBOX, inbox), OUTCOMES: stored(OUTCOMES, outcomes), DEAD: dead}
