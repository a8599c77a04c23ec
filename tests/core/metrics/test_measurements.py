"""What records measure, where the scenario of `test_definitions` does not show it."""

import orjson

from mesh.core.metrics.aggregate import Aggregate
from mesh.core.metrics.measurements import KEPT_MS_MAX, InboxMeter, kept_ms, meter_of
from mesh.core.metrics.windows import Scoped
from mesh.core.protocol.event import BATCH, PAUSED, Event, Part, encode_batch
from mesh.core.protocol.record import Record, StoredRecord, TopicPartition
from mesh.core.topology.model import Limits
from tests.builders import agent, event, topology
from tests.core.metrics.scenario import BEGIN_MS, INBOX, MESH, OUTCOMES, answer, scenario, stored


def measured(records: list[Record], place: TopicPartition = INBOX) -> Scoped:
    scopes: Scoped = {}
    meter = meter_of(place.topic, MESH)
    for record in records:
        meter.take(record, record.timestamp, lambda name: scopes.setdefault(name, Aggregate()))
    return scopes


def of(*events: Event) -> Scoped:
    return measured(stored(INBOX, [event(id="r1", at_ms=BEGIN_MS, run_id="run-1"), *events]))


def test_an_agent_that_waits_or_was_not_called_has_not_failed() -> None:
    scopes = of(*(answer("run-1", "plan", 10, 5, code=code) for code in ("later", "left_alone", "expired")))
    assert scopes["agent:plan"].counts == {"answers": 3, "untried": 3}


def test_every_event_of_an_answer_counts() -> None:
    parts = [Part("planned", b"{}"), Part("shipped", b"{}"), Part("planned", b"{}")]
    several = answer("run-1", "plan", 10, 5)
    several.content_type, several.data = BATCH, encode_batch(parts, source="/agents/plan", event_id="e")
    scopes = of(several)
    assert scopes["agent:plan"].counts["emitted"] == 3
    assert scopes["type:planned"].counts == {"events": 2}
    several.data = b"[1, null"
    assert "emitted" not in of(several)["agent:plan"].counts


def test_undeclared_types_share_one_scope() -> None:
    strangers = [event(id=f"r{n}", type=f"stranger-{n}", at_ms=BEGIN_MS) for n in range(3)]
    assert of(*strangers)["type:*"].counts == {"events": 3}


def test_three_agents_fail_one_after_another() -> None:
    mesh = topology(a=agent("ask -> x", fallback=("b", "c")), b="it.b -> x", c="it.c -> x", d="x -> y")
    meter, scopes = InboxMeter(mesh), Scoped()
    failed = [answer("run-1", name, at_ms, 5, code="exception") for at_ms, name in ((10, "a"), (20, "b"), (30, "c"))]
    unrelated = answer("run-1", "d", 40, 5, code="exception")
    for record in stored(INBOX, [event(at_ms=BEGIN_MS), *failed, unrelated]):
        meter.take(record, record.timestamp, lambda name: scopes.setdefault(name, Aggregate()))
    depths = {name: scopes[f"agent:{name}"].quantile("cascade", 1) for name in "abcd"}
    assert depths == {"a": 1, "b": 2, "c": 3, "d": 1}
    assert scopes["mesh"].counts["fallbacks"] == 2
    assert scopes["mesh"].counts["critical_ms"] == 15


def test_parallel_agents_do_not_lengthen_the_critical_path() -> None:
    scopes = of(answer("run-1", "plan", 100, 80), answer("run-1", "ship", 110, 90))
    assert scopes["mesh"].counts["critical_ms"] == 90
    assert scopes["mesh"].counts["elapsed_ms"] == 110


def test_of_a_run_that_is_too_old_only_its_own_numbers_are_left() -> None:
    late = answer("run-1", "plan", kept_ms(MESH) + 1, 5)
    counts = of(late)["mesh"].counts
    assert counts["answers"] == 1
    assert "elapsed_ms" not in counts
    assert kept_ms(topology(Limits(deadline_ms=10**9), plan="ask -> planned")) == KEPT_MS_MAX


def test_records_that_are_no_events_are_counted() -> None:
    garbage: list[Record] = [StoredRecord(*INBOX, 0, BEGIN_MS, b"k", b"x", [])]
    assert measured(garbage)["mesh"].counts == {"unreadable": 1}
    assert measured([garbage[0]], OUTCOMES)["mesh"].counts == {"unreadable": 1}


def test_answers_without_a_time_take_none() -> None:
    for time in ("", "yesterday"):
        odd = answer("run-1", "plan", 10, 5)
        odd.time = time
        assert of(odd)["agent:plan"].quantile("work_ms", 1) in (0, 10)


def test_a_request_that_opened_no_run_is_rejected_and_a_pause_is_an_override() -> None:
    odd = scenario()[OUTCOMES][0]
    rejected = StoredRecord(*OUTCOMES, 0, BEGIN_MS, b"k", orjson.dumps([]), odd.headers)
    assert measured([rejected], OUTCOMES)["mesh"].counts == {"rejected": 1}
    assert of(event(PAUSED, id="p"))["mesh"].counts["overrides"] == 1
