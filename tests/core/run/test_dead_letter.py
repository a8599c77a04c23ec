"""Dead letters: bytes untouched, explained, and the same whenever made again."""

from dataclasses import replace

from mesh.core.protocol.codec import read_event
from mesh.core.protocol.event import Event, Fault
from mesh.core.protocol.record import StoredRecord
from mesh.core.publishing.effect_records import outcome_body
from mesh.core.run.dead_letter import dead_record, dead_request, give_up, letter_id, record_refusal, refuse
from mesh.core.run.lineage import Refusal
from mesh.core.run.state import Task
from mesh.core.topology.model import Limits, Topology
from tests.builders import agent, event, record, run, topology
from tests.playbook import Playbook, redriven, requested, succeeded

REFUSAL = Refusal("depth", "plan", ("a", "b"), 2, 3, "depth: a > b > plan is 3 hops deep, at most 2")


def test_a_refused_hop_keeps_its_bytes_and_says_what_it_was() -> None:
    letter = refuse(run(), event(id="e1", origin="mesh.inbox:1:7"), REFUSAL, "plan.ready", "text/plain", b"\xff")
    assert (letter.code, letter.message, letter.agent) == ("depth", REFUSAL.message, "plan")
    assert (letter.value, letter.key, letter.origin, letter.run_id) == (b"\xff", b"run-1", "mesh.inbox:1:7", "run-1")
    headers = dict(letter.headers)
    assert headers["ce_type"] == b"plan.ready"
    assert headers["content-type"] == b"text/plain"
    assert headers["ce_correlationid"] == b"run-1"
    assert headers["ce_causationid"] == b"e1"
    assert {"ce_specversion", "ce_id", "ce_source"} <= headers.keys()


def test_every_refusal_of_a_run_has_an_id_of_its_own_that_is_made_again() -> None:
    def ids() -> list[str]:
        state = run()
        return [refuse(state, event(), REFUSAL, "ask", "text/plain", b"").id for _ in range(100)]

    assert ids() == ids()
    assert len(set(ids())) == 100


def test_a_run_remembers_the_first_refusals_and_counts_all() -> None:
    state = run()
    for n in range(100):
        record_refusal(state, REFUSAL._replace(actual=n))
    assert (state.refused, len(state.refusals), state.refusals[-1].actual) == (100, 64, 63)


def test_a_task_that_failed_for_good_brings_its_input_its_attempts_and_its_fault() -> None:
    task = Task("t1", "plan", 1, ("plan",), (), "r1", attempt=3)
    fault = Fault("boom", "it broke", "builtins.ValueError", True, "Traceback …")
    letter = give_up(run(), task, event("failed", type="ask", data=b"in", origin="mesh.tasks.plan:0:5"), fault)
    assert (letter.code, letter.message, letter.cls, letter.stack) == (
        "boom",
        "it broke",
        "builtins.ValueError",
        "Traceback …",
    )
    assert (letter.value, letter.agent, letter.task_id, letter.attempts) == (b"in", "plan", "t1", 3)
    assert dict(letter.headers)["ce_id"] == b"t1:3"
    assert dict(letter.headers)["ce_causationid"] == b"r1"


def test_a_request_that_no_version_can_take_can_be_read_again() -> None:
    request = event(id="r9", data=b'{"n":1}', subject="o-1", expiry_ms=5_000)
    letter = dead_request(request, "already_terminal", "too late")
    again = read_event(StoredRecord("mesh.inbox", 0, 0, request.at_ms, letter.key, letter.value, letter.headers))
    assert isinstance(again, Event)
    again.time = ""
    assert again == request


def test_the_same_request_with_two_bodies_makes_two_dead_letters() -> None:
    first, second = (dead_request(event(data=data), "idempotency_conflict", "") for data in (b"1", b"2"))
    assert first.id != second.id
    assert first.id == dead_request(event(data=b"1"), "idempotency_conflict", "").id


def test_a_record_that_is_no_event_keeps_bytes_key_headers_and_place() -> None:
    broken = StoredRecord("mesh.inbox", 2, 17, 0, b"\x00", b"\xff", [("x", b"\xfe")])
    letter = dead_record(broken, "bad_header", "why")
    assert (letter.value, letter.key, letter.headers) == (b"\xff", b"\x00", (("x", b"\xfe"),))
    assert (letter.origin, letter.run_id, letter.task_id) == ("mesh.inbox:2:17", "", "")
    assert letter.id == dead_record(broken, "bad_header", "why").id
    assert letter.id != dead_record(broken._replace(offset=18), "bad_header", "why").id


def test_what_could_be_read_of_a_record_names_run_agent_and_task() -> None:
    result = event("succeeded", agent="plan", task_id="t1")
    letter = dead_record(record(result), "misrouted", "why", result)
    assert (letter.run_id, letter.agent, letter.task_id) == ("run-1", "plan", "t1")


# --------------------------------------------------------------------------------------------------------------- drafts

LOOP = topology(
    write=agent("ask | again -> draft", visits_max=2), review="draft -> again, accepted", leaves=["accepted"]
)


def looped(mesh: Topology, size: int = 1) -> Playbook:
    """A loop that has come to its cap: the third draft is refused."""
    play = Playbook(mesh).let(requested())
    for n in (1, 2):
        play.let(succeeded("write", ("draft", n)), succeeded("review", ("again", str(n) * size)))
    return play


def test_a_loop_at_its_cap_leaves_its_last_draft_in_the_outcome() -> None:
    play = looped(LOOP)
    (draft,) = play.state.drafts
    assert (play.state.ending, draft.agent, draft.type, draft.data) == ("stopped", "write", "again", b'"2"')
    assert draft.letter == letter_id(play.state.id, 1)
    assert outcome_body(play.state)["drafts"][0]["agent"] == "write"


def test_a_draft_that_is_redriven_is_no_longer_in_the_outcome() -> None:
    play = looped(LOOP).let(redriven("write", refusal=1))
    assert (play.state.ending, play.state.drafts, play.state.state_bytes) == ("", (), 0)


def test_a_draft_that_the_run_may_not_hold_is_in_its_dead_letter_alone() -> None:
    play = looped(replace(LOOP, limits=Limits(state_bytes_max=10)), size=20)
    (draft,) = play.state.drafts
    assert (draft.data, draft.omitted) == (b"", True)


def test_of_each_agent_the_last_draft_is_kept() -> None:
    play = Playbook(LOOP).let(requested()).let(requested(id="r2"))
    play.let(succeeded("write", ("draft", 1)), succeeded("review", ("again", "old")))
    play.let(succeeded("write", ("draft", 2)), succeeded("review", ("again", "new")))
    assert [draft.data for draft in play.state.drafts] == [b'"new"']


def test_an_agent_that_lies_on_no_loop_leaves_no_draft() -> None:
    play = Playbook(topology(a="ask -> x", b=agent("x ->", visits_max=0))).let(requested(), succeeded("a", "x"))
    assert (len(play.state.refusals), play.state.drafts) == (1, ())


def test_hops_on_a_loop_that_too_many_tasks_refuse_leave_their_drafts() -> None:
    play = Playbook(replace(LOOP, limits=Limits(tasks_max=1))).let(requested(), succeeded("write", ("draft", "d")))
    assert [(draft.agent, draft.data) for draft in play.state.drafts] == [("review", b'"d"')]
