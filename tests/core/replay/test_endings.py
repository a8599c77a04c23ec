"""Endings in few words, the same from a run and from its outcome, and their groups."""

from mesh.core.protocol.event import Usage
from mesh.core.publishing.effect_records import outcome_body
from mesh.core.replay.endings import (
    EXAMPLES_MAX,
    GROUPS_MAX,
    UNKNOWN,
    Ending,
    RunWhatIf,
    WindowWhatIf,
    ending_of_outcome,
    ending_of_run,
)
from mesh.core.run.effects import Finish
from mesh.core.run.state import Run
from mesh.core.topology.model import Limits, Retry
from tests.builders import agent, topology
from tests.playbook import Playbook, cancelled, failed, redriven, requested, succeeded

DONE = Ending("completed", 3, 20, 5, 1, 0, ())
STOPPED = Ending("stopped", 2, 10, 5, 0, 1, ("depth of price",))


def finished(play: Playbook) -> Run:
    (run,) = (effect.run for effect in play.effects if isinstance(effect, Finish))
    return run


def test_a_run_and_its_outcome_have_the_same_ending() -> None:
    once = Retry(attempts_max=1)
    limits = Limits(depth_max=1, usd_micros_max=10)
    failing = topology(price=agent("ask -> priced", retry=once))
    deep = topology(limits, plan=agent("ask -> half, lost"), price="half -> priced")
    joined = topology(a="ask -> x", b="other -> y", c="x & y -> done")
    plays = [
        Playbook(failing).let(requested(), succeeded("price", "priced", usage=Usage(7, 3))),
        Playbook(failing).let(requested(), failed("price", "boom")),
        Playbook(deep).let(requested(), succeeded("plan", "half", usage=Usage(11))),
        Playbook(joined).let(requested(), succeeded("a", "x")),
        Playbook(failing).let(requested(), cancelled()),
        Playbook(deep).let(requested(), succeeded("plan", "half"), redriven("price"), succeeded("price", "priced")),
    ]
    endings = [ending_of_run(finished(play)) for play in plays]
    assert endings == [ending_of_outcome(outcome_body(finished(play))) for play in plays]
    assert [ending.ending for ending in endings] == [
        *("completed", "failed", "stopped", "partial", "cancelled", "completed")
    ]
    assert [ending.reasons for ending in endings] == [
        (),
        ("boom of price",),
        ("depth of price", "usd overspent"),
        ("c starved",),
        (),
        (),
    ]
    assert (endings[0].usd_micros, endings[0].tokens, endings[0].results) == (7, 3, 1)


def test_the_reason_is_what_is_new_else_what_is_gone() -> None:
    assert not RunWhatIf("r", DONE, DONE._replace(tasks=9)).differs
    assert RunWhatIf("r", DONE, STOPPED).reason == "depth of price (new)"
    assert RunWhatIf("r", STOPPED, DONE).reason == "depth of price (gone)"
    assert RunWhatIf("r", DONE, DONE._replace(results=2)).reason == "other results"
    unknown = RunWhatIf("r", STOPPED, STOPPED._replace(ending=UNKNOWN), ("b", "a", "b"))
    assert (unknown.differs, unknown.reason) == (True, "unknown from here: no recorded answer of a, b")
    assert not RunWhatIf("r", None, DONE).differs


def test_a_window_counts_sums_and_groups() -> None:
    found = WindowWhatIf()
    for n in range(EXAMPLES_MAX + 2):
        found.add(RunWhatIf(f"r{n}", DONE, STOPPED))
    found.add(RunWhatIf("same", DONE, DONE))
    found.add(RunWhatIf("open", None, DONE))
    found.add(RunWhatIf("unknown", STOPPED, STOPPED._replace(ending=UNKNOWN), ("price",)))
    assert (found.same, found.different, found.unknown, found.open) == (1, 8, 1, 1)
    assert (found.before.runs, found.before.tasks, found.before.usd_micros, found.before.tokens) == (9, 26, 170, 45)
    assert found.after.endings == {"stopped": 7, "completed": 1, UNKNOWN: 1}
    group = found.groups["completed", "stopped", "depth of price (new)"]
    assert (group.runs, len(group.examples)) == (7, EXAMPLES_MAX)


def test_the_number_of_groups_is_bounded() -> None:
    found = WindowWhatIf()
    for n in range(GROUPS_MAX + 10):
        found.add(RunWhatIf("r", DONE, STOPPED._replace(reasons=(f"code {n}",))))
    assert len(found.groups) == GROUPS_MAX + 1
    assert found.groups["completed", "stopped", "other reasons"].runs == 10
