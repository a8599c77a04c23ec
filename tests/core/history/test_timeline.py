"""The story of a run: folded from its records, told as tasks and moments; the outcome on the log has the last word."""

from typing import Any

from mesh.core.history.outcome_body import time_ms
from mesh.core.history.task_attempts import DEAD, DONE, DROPPED, MOMENTS, WAITING, WORKING, TaskHistory
from mesh.core.history.timeline import History
from mesh.core.protocol.event import NO_USAGE, OUTCOME, Usage
from mesh.core.protocol.partitioner import partition_of
from mesh.core.publishing.effect_records import outcome_body
from mesh.core.run.effects import Finish
from mesh.core.topology.model import Limits, Retry, Topology
from tests.builders import AT_MS, RUN_ID, agent, event, record, topology
from tests.playbook import Move, Playbook, cancelled, due, failed, happens, redriven, requested, resumed, succeeded

DESK = topology(
    plan="ask -> plan.ready",
    price="plan.ready -> priced",
    stock="plan.ready -> stocked",
    ship="priced & stocked -> shipped",
)
RETRY = Retry(attempts_max=2, first_ms=100, factor=1, jitter=0)


class Told:
    """A playbook whose events also go into a history, as records."""

    def __init__(self, mesh: Topology = DESK, *, by: Topology | None = None) -> None:
        self.play = Playbook(mesh)
        self.history = History(by or mesh, RUN_ID, partition=partition_of(RUN_ID.encode(), mesh.inbox_partitions))
        self.lines: list[str] = []
        """Kinds and agents of the moments of the last step."""

    def let(self, *moves: Move) -> "Told":
        for move in moves:
            self.play.let(move)
            assert self.play.last is not None
            self.take(record(self.play.last))
        return self

    def take(self, stored: Any) -> None:
        moments = self.history.take(stored)
        assert all(moment.kind in MOMENTS for moment in moments)
        self.lines = [f"{m.kind} {m.agent}".strip() for m in moments]

    def body(self) -> dict[str, Any]:
        (finish,) = (effect for effect in self.play.effects if isinstance(effect, Finish))
        return outcome_body(finish.run)

    def task(self, agent: str) -> TaskHistory:
        (task,) = (task for task in self.history.tasks.values() if task.agent == agent)
        return task


def shipped() -> Told:
    """A run that went well, a millisecond a step."""
    return Told().let(
        requested(),
        succeeded("plan", "plan.ready", after_ms=3),
        succeeded("price", "priced", after_ms=2),
        succeeded("stock", "stocked", after_ms=5),
        succeeded("ship", "shipped", after_ms=1),
    )


# ------------------------------------------------------------------------------------------------------------ the tree


def test_tasks_stand_below_the_task_whose_answer_caused_them() -> None:
    history = shipped().history
    assert [task.agent for task in history.children("")] == ["plan"]
    (plan,) = history.children("")
    assert [task.agent for task in history.children(plan.id)] == ["price", "stock"]
    _, stock = history.children(plan.id)
    assert [task.agent for task in history.children(stock.id)] == ["ship"]  # its answer completed the join


def test_a_task_knows_when_it_began_when_it_ended_and_what_it_emitted() -> None:
    told = shipped()
    stock = told.task("stock")
    assert (stock.began_ms - AT_MS, stock.took_ms, stock.state) == (3, 7, DONE)
    assert (stock.emitted, stock.type, stock.depth, stock.path) == (("stocked",), "plan.ready", 2, ("plan", "stock"))
    assert [(a.number, a.fault) for a in stock.attempts] == [(1, None)]


def test_an_open_run_shows_the_agents_at_work() -> None:
    told = Told().let(requested(), succeeded("plan", "plan.ready"), succeeded("price", "priced"))
    assert (told.task("stock").state, told.task("stock").took_ms) == (WORKING, None)
    assert (told.history.state, told.history.ending, told.history.ended_ms) == ("open", "", None)


def test_a_failed_attempt_waits_then_works_again_then_is_given_up() -> None:
    mesh = topology(work=agent("ask -> done", retry=RETRY))
    told = Told(mesh).let(requested(), failed("work", "boom", after_ms=10))
    assert told.lines == ["failed work", "retry work"]
    assert told.task("work").state == WAITING
    told.let(due("work"))
    assert told.lines == ["dispatched work"]
    assert told.task("work").state == WORKING
    told.let(failed("work", "boom", after_ms=5))
    assert told.lines == ["failed work", "dead work", "ended"]
    work = told.task("work")
    assert (work.state, work.took_ms, [a.number for a in work.attempts]) == (DEAD, 115, [1, 2])
    assert [a.fault.code if a.fault else "" for a in work.attempts] == ["boom", "boom"]
    assert [(f.agent, f.attempts, f.code) for f in told.history.failures] == [("work", 2, "boom")]
    assert told.history.ending == "failed"


def test_usage_of_all_attempts_is_counted() -> None:
    mesh = topology(work=agent("ask -> done", retry=RETRY))
    told = Told(mesh).let(requested(), failed("work", usage=Usage(5, 10)), due("work"))
    told.let(succeeded("work", "done", usage=Usage(7, 20)))
    assert (told.task("work").usd_micros, told.task("work").tokens) == (12, 30)


def test_what_is_reported_too_late_to_be_charged_is_reported_once() -> None:
    told = Told().let(requested())
    late = succeeded("plan", "plan.ready", usage=Usage(1_500, 20))(told.play)
    told.let(cancelled())
    assert (told.history.used, told.history.uncharged.total) == (NO_USAGE, NO_USAGE)
    for _ in range(2):
        told.take(record(late))
    assert (told.history.used, told.history.uncharged.total) == (NO_USAGE, Usage(1_500, 20))


def test_a_repeated_answer_whose_usage_was_charged_is_not_reported_as_too_late() -> None:
    told = Told(topology(plan=agent("ask -> ready", retry=RETRY))).let(requested(), failed("plan", usage=Usage(0, 5)))
    assert told.play.last is not None
    told.take(record(told.play.last))
    assert told.history.used == Usage(0, 5)
    assert told.history.uncharged.total == NO_USAGE


def test_tasks_that_the_end_of_the_run_overtook_are_dropped() -> None:
    told = Told().let(requested(), cancelled())
    assert told.lines == ["cancelled", "ended"]
    assert (told.task("plan").state, told.history.ending) == (DROPPED, "cancelled")


# --------------------------------------------------------------------------------------------------------- the moments


def test_the_timeline_reports_what_happened_in_order() -> None:
    moments = shipped().history.moments
    assert [f"{m.at_ms - AT_MS} {m.kind} {m.agent}: {m.text}" for m in moments] == [
        "0 requested : ask",
        "0 dispatched plan: ask",
        "3 succeeded plan: plan.ready",
        "3 dispatched price: plan.ready",
        "3 dispatched stock: plan.ready",
        "5 succeeded price: priced",
        "10 succeeded stock: stocked",
        "10 dispatched ship: priced + stocked",
        "11 succeeded ship: shipped",
        "11 left ship: shipped → out.shipped",
        "11 ended : completed",
    ]


def test_a_refused_hop_is_reported_with_path_and_numbers() -> None:
    mesh = topology(Limits(depth_max=1), one="ask -> half", two="half -> whole")
    told = Told(mesh).let(requested(), succeeded("one", "half"))
    assert told.lines == ["succeeded one", "refused two", "ended"]
    (refusal,) = told.history.refusals
    assert (refusal.code, refusal.limit, refusal.actual, refusal.path) == ("depth", 1, 2, ("one",))
    assert refusal.message in [moment.text for moment in told.history.moments]
    assert told.history.ending == "stopped"


def test_a_passed_deadline_is_reported_as_a_refusal() -> None:
    told = Told().let(requested(), due())
    assert told.lines == ["refused", "ended"]
    assert told.history.moments[-2].text.startswith("deadline: ")


def test_what_changes_nothing_is_reported_as_noted() -> None:
    told = Told().let(requested())
    told.play.attempt("plan")
    told.let(happens("succeeded", task_id="t-unknown", agent="plan", id="x", path=("plan",), depth=1))
    assert told.lines == ["succeeded plan", "noted plan"]
    told.take(record(event(id="r1", at_ms=AT_MS)))
    assert told.lines == ["noted"]
    assert told.history.moments[-1].text.startswith("duplicate_request: ")


def test_a_repeated_request_with_another_body_is_reported_as_refused() -> None:
    told = shipped()
    told.take(record(event(id="r1", data=b'{"other": 1}')))
    assert told.lines == ["refused"]
    assert told.history.moments[-1].text.startswith("idempotency_conflict: ")
    assert told.history.ending == "completed"


def test_a_record_that_is_no_event_is_reported_as_dropped() -> None:
    told = Told().let(requested())
    told.take(record(event(id="x"), headers=[]))
    assert told.lines == ["dropped"]


def test_records_of_other_runs_are_passed_over() -> None:
    told = Told().let(requested())
    before = len(told.history.moments)
    told.take(record(event(run_id="run-2")))
    assert (told.lines, len(told.history.moments)) == ([], before)


# --------------------------------------------------------------------------------------------------------- the outcome


def test_without_anything_there_is_nothing_to_tell() -> None:
    history = Told().history
    assert (history.request, history.run, history.state) == (None, None, "open")
    assert (history.type, history.subject, history.opened_ms) == ("", "", 0)
    assert not any((history.refusals, history.failures, history.starved, history.results))


def test_the_outcome_says_the_same_as_the_fold() -> None:
    told = shipped()
    history, body = told.history, told.body()
    folded = (history.ending, history.ended_ms, [r.type for r in history.results], history.type)
    assert list(history.take_outcome(event(OUTCOME, at_ms=AT_MS + 11), body)) == []
    assert (history.ending, history.ended_ms, [r.type for r in history.results], history.type) == folded
    assert not history.differs


def test_where_the_topology_has_changed_the_outcome_stands_and_it_is_said() -> None:
    told = Told(by=topology(plan="ask -> plan.ready")).let(
        requested(), succeeded("plan", "plan.ready"), succeeded("price", "priced")
    )
    history = told.history
    assert history.folded_ending == "completed"  # in today's topology no agent subscribes to plan.ready
    told.let(succeeded("stock", "stocked"), succeeded("ship", "shipped"))
    assert [(t.agent, t.path[:-1]) for t in history.tasks.values()] == [
        ("plan", ()),
        ("price", ("plan",)),
        ("stock", ("plan",)),
        ("ship", ("plan", "price")),
    ]
    assert [task.agent for task in history.children(told.task("price").id)] == ["ship"]
    body = {**told.body(), "ending": "partial", "refusals": [_refusal()], "starved": ["ship: got priced"]}
    moments = history.take_outcome(event(OUTCOME), body)
    assert [(m.kind, m.text) for m in moments] == [("ended", "partial")]
    assert (history.state, history.differs) == ("partial", True)
    assert [(r.code, r.path) for r in history.refusals] == [("depth", ("plan",))]
    assert list(history.starved) == ["ship: got priced"]


def test_an_outcome_whose_request_is_no_longer_there_is_reported_alone() -> None:
    body = shipped().body()
    history = Told().history
    moments = history.take_outcome(event(OUTCOME, subject="order 7", at_ms=AT_MS + 11), body)
    assert [(m.kind, m.text) for m in moments] == [("ended", "completed")]
    assert (history.type, history.subject, history.opened_ms - AT_MS, history.state) == (
        "ask",
        "order 7",
        0,
        "completed",
    )
    assert history.ended_ms == AT_MS + 11
    assert [(r.type, r.agent, r.data) for r in history.results] == [("shipped", "ship", b"{}")]
    assert not history.differs


def test_an_outcome_with_fields_left_out_is_read_as_far_as_it_goes() -> None:
    body = {"ending": "failed", "opened": "2026-11-20T12:00:00.000Z", "ended": "2026-11-20T12:00:01.500Z"}
    history = Told().history
    history.take_outcome(event(OUTCOME), {**body, "refusals": [{}], "failures": [{}], "results": [{"text": "hm"}]})
    assert (history.refusals[0].code, history.failures[0].agent, history.results[0].data) == ("", "", b"hm")
    assert history.ended_ms is not None
    assert history.ended_ms - history.opened_ms == 1_500


def test_times_are_read_as_the_outcome_writes_them() -> None:
    assert time_ms("1970-01-01T00:00:01.234Z") == 1_234


def _refusal() -> dict[str, Any]:
    message = "depth: plan > ship is 2 hops deep, at most 1"
    return {"code": "depth", "agent": "ship", "path": ["plan"], "limit": 1, "actual": 2, "message": message}


# ------------------------------------------------------------------------------------- fallbacks, pauses and redrives


CHAIN = topology(a=agent("ask -> x", retry=Retry(attempts_max=1), fallback=("b",)), b=agent("-> x", retry=Retry(1)))


def told_of(*moves: Move, mesh: Topology = CHAIN) -> History:
    """The history of a run in which this happens."""
    return Told(mesh).let(*moves).history


def test_a_fallback_lies_below_the_task_that_it_replaces() -> None:
    history = told_of(requested(), failed("a"), succeeded("b", "x"))
    (first,) = history.children("")
    (second,) = history.children(first.id)
    assert [(first.agent, first.state), (second.agent, second.state)] == [("a", "replaced"), ("b", "done")]
    assert history.ending == "completed"


def test_a_pause_and_its_end_are_reported() -> None:
    history = told_of(requested(), happens("paused", subject="ann: look"), resumed(after_ms=700))
    told = [(moment.kind, moment.text) for moment in history.moments]
    assert ("paused", "ann: look") in told
    assert ("resumed", "after 700 ms") in told


def test_a_task_that_waits_from_the_beginning_is_reported() -> None:
    mesh = topology(a="ask -> x", b="x -> y")
    history = told_of(requested(), happens("paused"), succeeded("a", "x"), mesh=mesh)
    assert [(task.agent, task.state) for task in history.tasks.values()] == [("a", "done"), ("b", "waiting")]


def test_a_redrive_opens_the_run_again_and_stands_in_the_place_of_what_failed() -> None:
    history = told_of(requested(), failed("a"), failed("b"))
    assert history.ending == "failed"
    outcome = {"ending": "failed", "generation": 0, "opened": "2026-11-20T12:00:00Z", "ended": "2026-11-20T12:00:00Z"}
    history.take_outcome(event("outcome"), outcome)
    again = told_of(requested(), failed("a"), failed("b"), redriven("b"), succeeded("a", "x"))
    again.take_outcome(event("outcome"), outcome)
    assert again.ending == "completed", "the outcome of an earlier generation is none"
    assert [(task.agent, task.state) for task in again.tasks.values()] == [
        ("a", "replaced"),
        ("b", "replaced"),
        ("a", "done"),
    ]


def test_a_history_that_keeps_payloads_keeps_the_records_of_its_run() -> None:
    told, kept = shipped(), History(DESK, RUN_ID, partition=0, payloads=True)
    stored = record(event(), 0)
    kept.take(stored)
    kept.take(record(event(run_id="run-9"), 1))
    assert kept.records == [stored]
    assert told.history.records == []
