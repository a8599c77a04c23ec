"""One run as steps: what caused each, what the run was before and after, and what the recording lacks."""

from mesh.core.expression.condition import parse
from mesh.core.protocol.event import Event
from mesh.core.protocol.partitioner import partition_of
from mesh.core.replay.steps import DEAD_LETTER, TRIMMED, UNREADABLE
from mesh.core.run.control import ALL
from mesh.core.run.effects import Finish, PublishTask
from mesh.core.state.partition_state import Partition
from mesh.core.topology.model import Limits, Retry
from tests.builders import AT_MS, RUN_ID, agent, event, record, topology
from tests.core.replay.recorded import Recorded
from tests.playbook import cancelled, due, failed, redriven, requested, succeeded

DESK = topology(
    plan="ask -> plan.ready",
    price="plan.ready -> priced",
    stock="plan.ready -> stocked",
    ship="priced & stocked -> shipped",
)
ONCE = Retry(attempts_max=1)
TWICE = Retry(attempts_max=2, first_ms=100, factor=1, jitter=0)


def shipped() -> Recorded:
    return Recorded(DESK).let(
        requested(),
        succeeded("plan", "plan.ready", after_ms=3),
        succeeded("price", "priced", after_ms=2),
        succeeded("stock", "stocked", after_ms=5),
        succeeded("ship", "shipped", after_ms=1),
    )


def test_a_step_has_the_run_before_and_after_it_and_its_effects() -> None:
    first, second, *_, last = shipped().steps
    assert first.before is None
    assert first.after is not None
    assert first.after == second.before
    assert [task.agent for task in first.after.open.values()] == ["plan"]
    assert [e.event.agent for e in second.effects if isinstance(e, PublishTask)] == ["price", "stock"]
    assert isinstance(last.effects[-1], Finish)
    assert (last.where, last.at_ms) == ("mesh.inbox:0:4", AT_MS + 11)


def test_a_step_names_the_step_that_caused_it() -> None:
    assert [step.cause for step in shipped().steps] == [None, 1, 2, 2, 4]


def test_an_attempt_that_waited_is_caused_by_its_timer_and_the_timer_by_the_failure() -> None:
    mesh = topology(price=agent("ask -> priced", retry=TWICE))
    recorded = Recorded(mesh).let(requested(), failed("price"), due("price"), succeeded("price", "priced"))
    assert [(step.kind, step.agent, step.cause) for step in recorded.steps] == [
        ("requested", "", None),
        ("failed", "price", 1),
        ("due", "price", 2),
        ("succeeded", "price", 3),
    ]


def test_records_of_other_runs_are_no_steps() -> None:
    recorded = shipped()
    other = event(id="r9", run_id="run-9")
    assert recorded.take(record(other, 77)) is None
    assert recorded.take(record(event("switched", run_id=ALL, id="s1"), 78)) is None
    assert len(recorded.steps) == 5


def test_a_condition_reads_the_fields_of_a_step() -> None:
    mesh = topology(plan="ask -> plan.ready", price="plan.ready -> priced", limits=Limits(depth_max=1))
    recorded = Recorded(mesh).let(requested(payload={"total": 7}), succeeded("plan", "plan.ready"))
    fields = [step.fields() for step in recorded.steps]

    def holding(text: str) -> list[int]:
        condition = parse(text)
        return [n for n, found in enumerate(fields, 1) if condition.holds({"": found})]

    assert holding('kind == "requested" and data.total > 5') == [1]
    assert holding('agent == "plan" and depth == 1 and attempt == 1') == [2]
    assert holding('"plan" in asked') == [1]
    assert holding('code == "depth"') == [2]
    assert holding('ending == "stopped"') == [2]
    assert [step.is_refusal for step in recorded.steps] == [False, True]


def test_gaps_are_dead_letters_redrives_and_cancellations() -> None:
    mesh = topology(price=agent("ask -> priced", retry=ONCE))
    recorded = Recorded(mesh).let(requested(), failed("price"), redriven("price"), cancelled())
    assert [(gap.kind, gap.step) for gap in recorded.folded.gaps()] == [
        (DEAD_LETTER, 2),
        ("redriven", 3),
        ("cancelled", 4),
    ]
    assert not list(shipped().folded.gaps())


def test_a_record_that_is_no_event_is_a_step_and_a_gap() -> None:
    recorded = shipped()
    step = recorded.take(record(event(), 9, headers=(("ce_id", b"x"),)))
    assert step is not None
    assert (step.kind, step.agent, step.event, step.before) == (UNREADABLE, "", None, step.after)
    assert step.codes == ("not_cloudevents",)
    assert [gap.kind for gap in recorded.folded.gaps()] == [UNREADABLE]


def test_a_recording_without_its_first_records_says_so() -> None:
    whole, cut = shipped(), Recorded(DESK)
    for stored in whole.records[2:]:
        cut.take(stored)
    (gap,) = cut.folded.gaps()
    assert (gap.kind, gap.step) == (TRIMMED, 0)
    assert "no checkpoint has the run" in gap.text


def test_a_recording_without_its_first_records_begins_with_a_checkpoint() -> None:
    whole, cut = shipped(), Recorded(DESK)
    home = partition_of(RUN_ID.encode(), DESK.inbox_partitions)
    state = Partition(DESK, number=home, partitions=DESK.inbox_partitions)
    for stored in whole.records[:2]:
        state.step(stored)
    cut.folded.begin_with(state)
    for stored in whole.records[2:]:
        cut.take(stored)
    assert cut.folded.offset == 2
    assert [step.after for step in cut.steps] == [step.after for step in whole.steps[2:]]
    (gap,) = cut.folded.gaps()
    assert (gap.kind, gap.step, "offset 2" in gap.text) == (TRIMMED, 0, True)


def test_the_events_are_those_of_the_log() -> None:
    recorded = shipped()
    assert all(isinstance(step.event, Event) and step.event.run_id == RUN_ID for step in recorded.steps)
