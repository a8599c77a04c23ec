"""Validation of a mesh: types, conditions, cycles, depth, limits; and its derived fields."""

from collections.abc import Mapping

import pytest

from mesh.core.errors import Problem, TopologyInvalid
from mesh.core.topology.loader import load
from mesh.core.topology.model import SERVICE_GROUPS, AgentSpec, Limits, TopicRule, Topology
from mesh.core.topology.validation import DeclaredTopology, validate

UNSUBSCRIBED = "no agent subscribes to {}, and no topic has it as `egress`"
UNEMITTED = "no agent emits {}, and no topic has it as `ingress`"


def mesh(
    agents: str, *, ingress: str = "in", egress: str = "[]", limits: str = "{}", topics: str = "", prefix: str = "mesh"
) -> str:
    """A mesh whose agents begin on line 6; `egress` [] means none."""
    out = f"t.out: {{egress: {egress}}}" if egress != "[]" else "# no way out"
    return (
        f"mesh: {{prefix: {prefix}, limits: {limits}}}\n"
        f"topics:\n  t.in: {{ingress: {ingress}}}\n  {out}\n"
        "agents:\n" + "".join(f"  {line}\n" for line in agents.strip().splitlines()) + f"topics_: {topics}\n"
    ).replace("topics_: \n", "")


def agent(name: str, on: str, emits: str = "[]", more: str = "") -> str:
    return f'{name}: {{run: "m:f", on: {on}, emits: {emits}{", " + more if more else ""}}}\n'


def problems(text: str) -> tuple[Problem, ...]:
    with pytest.raises(TopologyInvalid) as caught:
        load(text)
    return caught.value.problems


def only(text: str) -> Problem:
    found = problems(text)
    assert len(found) == 1, found
    return found[0]


# ---------------------------------------------------------------------------------------------------------- derived

DIAMOND = agent("split", "in", "[left, right]") + agent("a", "left", "l") + agent("b", "right", "r")
JOINED = DIAMOND + agent("meet", "{all: [l, r]}", "done")


def test_rows_say_what_each_type_may_fire_in_the_order_of_declaration() -> None:
    topology = load(mesh(JOINED + agent("log", "[in, l, done]"), egress="done"))
    rows = {type: [(row.agent.name, row.join) for row in rows] for type, rows in topology.rows.items()}
    assert rows == {
        "in": [("split", ()), ("log", ())],
        "left": [("a", ())],
        "right": [("b", ())],
        "l": [("meet", ("l", "r")), ("log", ())],
        "r": [("meet", ("l", "r"))],
        "done": [("log", ())],
    }
    assert topology.rows["in"][0].agent is topology.agents["split"]


def test_doors_are_found_by_type() -> None:
    topology = load(mesh(JOINED, egress="[done]"))
    assert {type: rule.name for type, rule in topology.ingress.items()} == {"in": "t.in"}
    assert {type: rule.name for type, rule in topology.egress.items()} == {"done": "t.out"}


def test_only_agents_on_a_cycle_are_cyclic() -> None:
    text = mesh(
        agent("start", "in", "x")
        + agent("ping", "[x, pong]", "ping", "visits_max: 3")
        + agent("pong", "ping", "[pong, done]")
        + agent("self", "done", "done", "visits_max: 2")
    )
    cyclic = {name: spec.cyclic for name, spec in load(text).agents.items()}
    assert cyclic == {"start": False, "ping": True, "pong": True, "self": True}


def test_a_condition_is_bound_to_the_types_its_agent_consumes() -> None:
    spec = load(mesh(DIAMOND + agent("meet", "{all: [l, r]}", more="when: l.x < r.x"))).agents["meet"]
    assert spec.when is not None
    assert spec.when.bound == ("l", "r")
    assert spec.when.holds({"l": {"x": 1}, "r": {"x": 2}})


def test_a_draft_without_lines_can_be_proved() -> None:
    spec = AgentSpec("a", "m:f", ("in",), ("x",))
    topology, found = validate(DeclaredTopology(Topology("m", "", Limits(), {"a": spec}, {"t": TopicRule("t", "in")})))
    assert topology.rows["in"][0].agent == spec
    assert [(p.line, p.what) for p in found] == [
        (1, "agents.a.emits: no agent subscribes to x, and no topic has it as `egress`")
    ]


# ------------------------------------------------------------------------------------------------------------ types


def test_an_agent_whose_types_are_never_emitted_is_never_triggered() -> None:
    problem = only(mesh(agent("a", "in") + agent("b", "payment.settled")))
    assert problem.line == 7
    assert problem.what == f"agents.b.on: {UNEMITTED.format('payment.settled')}, so b is never triggered"
    assert "`ingress: payment.settled`" in problem.remedy


def test_an_agent_with_another_type_that_occurs_is_triggered() -> None:
    problem = only(mesh(agent("a", "[in, payment.settled]")))
    assert problem.what == "agents.a.on: no agent emits payment.settled, and no topic has it as `ingress`"


def test_the_line_is_that_of_the_type_in_a_list_over_several_lines() -> None:
    text = "topics:\n  t: {ingress: in}\nagents:\n  a:\n    run: m:f\n    on:\n      - in\n      - never.emitted\n"
    assert only(text).line == 8


def test_a_misspelt_type_names_the_right_one() -> None:
    problem = only(mesh(agent("a", "order.plcaed"), ingress="order.placed"))
    assert problem.what == "agents.a.on: unknown type order.plcaed"
    assert problem.remedy.startswith("Did you mean order.placed?")


def test_a_join_that_needs_what_never_occurs_cannot_be_met() -> None:
    problem = only(mesh(agent("a", "{all: [in, never.said]}")))
    assert "so the join of a can never be met" in problem.what


def test_a_join_that_needs_what_comes_only_after_it_cannot_be_met() -> None:
    text = mesh(agent("meet", "{all: [in, answer]}", "question", "visits_max: 2") + agent("ask", "question", "answer"))
    problem = only(text)
    assert problem.what == "agents.meet.on: the join cannot be met, answer occurs only after it (meet -> ask -> meet)"
    assert problem.line == 6


def test_a_join_on_a_cycle_that_can_start_is_met() -> None:
    load(mesh(agent("meet", "{all: [in, x]}", "y", "visits_max: 2") + agent("make", "[in, y]", "x")))


def test_agents_that_wait_only_for_one_another_are_never_started() -> None:
    text = mesh(agent("a", "in") + agent("b", "y", "x", "visits_max: 2") + agent("c", "x", "y") + agent("d", "x"))
    problem = only(text)
    assert problem.what == "agents.b.on: b -> c -> b can never start: these agents wait only for one another"
    assert problem.line == 7


def test_the_order_of_declaration_does_not_decide_what_can_start() -> None:
    ring = agent("meet", "{all: [x, pong]}", "ping", "visits_max: 2") + agent("pong", "[ping, y]", "pong")
    load(mesh(ring + agent("more", "x", "y") + agent("start", "in", "x")))


def test_an_unconsumed_type_is_a_problem_unless_it_leaves() -> None:
    text = agent("a", "in", "[x, y]") + agent("b", "x")
    load(mesh(text, egress="y"))
    problem = only(mesh(text))
    assert (problem.line, problem.what) == (
        6,
        f"agents.a.emits: {UNSUBSCRIBED.format('y')}",
    )
    assert problem.remedy.startswith("Subscribe an agent to it")


def test_a_similar_type_is_suggested_for_an_unconsumed_one() -> None:
    problem = only(mesh(agent("a", "in", "[stock.reserved, stock.returned]") + agent("b", "stock.reserved")))
    assert problem.remedy.startswith("Did you mean stock.reserved? Else: Subscribe an agent to it")


def test_an_unconsumed_ingress_type_is_a_problem() -> None:
    problem = only(mesh(agent("a", "in"), topics="").replace("# no way out", "more: {ingress: other}"))
    assert (problem.line, problem.what) == (4, "topics.more.ingress: no agent subscribes to other")


def test_an_egress_type_that_is_never_emitted_is_a_problem() -> None:
    problem = only(mesh(agent("a", "in"), egress="[finished]"))
    assert (problem.line, problem.what) == (4, "topics.t.out.egress: no agent emits finished")


def test_a_misspelt_egress_type_is_one_problem() -> None:
    problem = only(mesh(agent("a", "in", "order.fulfilled"), egress="order.fulfiled"))
    assert problem.what == "topics.t.out.egress: unknown type order.fulfiled"
    assert problem.remedy.startswith("Did you mean order.fulfilled?")


def test_nothing_follows_from_wiring_that_could_not_be_read() -> None:
    found = problems(mesh(agent("a", "in", "part.done") + agent("b", "{gather: part.done, of: part}")))
    assert [p.what for p in found] == ["agents.b.on.gather: not supported yet in this version"]


def test_wiring_that_could_not_be_read_hides_only_what_it_names() -> None:
    agents = (
        agent("a", "in", "[part.done, stock.counted]") + agent("b", "{gather: part.done}") + agent("c", "bill.paid")
    )
    found = [p.what for p in problems(mesh(agents))]
    assert found[0] == "agents.a.emits: no agent subscribes to stock.counted, and no topic has it as `egress`"
    assert found[2] == f"agents.c.on: {UNEMITTED.format('bill.paid')}, so c is never triggered"
    assert len(found) == 3


# ----------------------------------------------------------------------------------------------------------- topics


@pytest.mark.parametrize(
    ("topic", "prefix", "what"),
    [
        ("mesh.inbox: {ingress: x}", "mesh", "the name belongs to the mesh's own topic mesh.inbox"),
        ("mesh.anything: {ingress: x}", "mesh", "the name belongs to the mesh's own topic mesh.*"),
        ("mesh_tasks_a: {ingress: x}", "mesh", "the name belongs to the mesh's own topic mesh.tasks.a"),
        ("desk.dead: {ingress: x}", "desk", "the name belongs to the mesh's own topic desk.dead"),
        ("desk.redrives: {ingress: x}", "desk", "the name belongs to the mesh's own topic desk.redrives"),
        ("desk.tasks.any: {ingress: x}", "desk", "the name belongs to the mesh's own topic desk.tasks.*"),
        ("desk_board: {ingress: x}", "desk", "the name belongs to the mesh's own topic desk.board"),
        ("t_in: {ingress: x}", "mesh", "Kafka cannot distinguish it from topic t.in"),
        ("again: {ingress: in}", "mesh", "in is already ingress of topic t.in"),
        ("loop: {ingress: x, egress: y}", "mesh", "both ingress and egress"),
        ("other: {egress: y, id: n}", "mesh", "only ingress records get an id"),
        ("other: {ingress: x, key: in.one.n}", "mesh", "begins with a type of event"),
    ],
)
def test_topics_that_clash(topic: str, prefix: str, what: str) -> None:
    text = mesh(agent("a", "[in, x, in.one]", "y") + agent("b", "y", "in.one", "visits_max: 1"), prefix=prefix)
    text = text.replace("# no way out", topic)
    if "ingress: x" not in topic:
        text = text.replace("[in, x, in.one]", "[in, in.one]")
    problem = only(text)
    assert (problem.line, what in problem.what) == (4, True), problem


@pytest.mark.parametrize("name", SERVICE_GROUPS)
def test_an_agent_does_not_share_the_consumer_group_of_a_service(name: str) -> None:
    problem = only(mesh(agent(name, "in")))
    assert problem.line == 6
    assert f"its consumer group mesh.{name} would be that of the mesh's own {name}" in problem.what


@pytest.mark.parametrize(
    ("named", "line"), [("{name: shop.tasks}", 1), ("{name: shop, prefix: shop.tasks}", 1), ("{prefix: a.tasks}", 1)]
)
def test_a_prefix_does_not_end_where_topics_of_tasks_begin(named: str, line: int) -> None:
    text = f"mesh: {named}\n" + mesh(agent("a", "in")).split("\n", 1)[1]
    problem = only(text)
    assert (problem.line, "ends with .tasks" in problem.what) == (line, True)
    load(text.replace(".tasks", ".task"))
    load(text.replace(named, "{name: shop.tasks, prefix: shop}"))  # only the prefix is part of other names


def test_a_topic_of_another_mesh_is_no_clash() -> None:
    load(mesh(agent("a", "in")).replace("t.in", "mesh.inbox").replace("prefix: mesh", "prefix: desk"))


def test_topics_may_begin_with_the_name_of_their_mesh() -> None:
    load(mesh(agent("a", "in"), prefix="desk").replace("t.in", "desk.in"))


def test_a_type_leaves_by_one_topic() -> None:
    text = mesh(agent("a", "in", "x"), egress="x").replace("agents:", "  t.more: {egress: [x]}\nagents:")
    assert (only(text).line, only(text).what) == (5, "topics.t.more.egress: x is already egress of topic t.out")


# ------------------------------------------------------------------------------------------------------- conditions


@pytest.mark.parametrize(
    ("on", "when", "what", "remedy"),
    [
        (
            "[fraud.scored]",
            "order.priced.usd < 3",
            "names type order.priced, to which z does not subscribe",
            "fraud.scored.order",
        ),
        ("[fraud.scored]", "fraud.scord.score < 3", "names an unknown type", "Did you mean fraud.scored?"),
        ("{all: [fraud.scored, order.priced]}", "score < 3", "does not say which event is meant", "fraud.scored.score"),
        ("{all: [fraud.scored, order.priced]}", "order.prised.usd > 1", "unknown type", "Did you mean order.priced?"),
    ],
)
def test_a_condition_must_read_events_that_its_agent_consumes(on: str, when: str, what: str, remedy: str) -> None:
    others = agent("a", "in", "fraud.scored") + agent("b", "in", "order.priced") + agent("y", "order.priced")
    problem = only(mesh(others + agent("y2", "fraud.scored") + agent("z", on, more=f"when: {when}")))
    assert problem.line == 10
    assert what in problem.what
    assert remedy in problem.remedy


@pytest.mark.parametrize("when", ["score < 3", "fraud.scored.score < 3", "fraud == 1", "order.id == 1", "x[0].y"])
def test_a_field_of_the_only_event_needs_no_type(when: str) -> None:
    load(mesh(agent("a", "in", "fraud.scored") + agent("z", "fraud.scored", more=f"when: '{when}'")))


def test_each_path_is_named_once() -> None:
    text = mesh(DIAMOND + agent("meet", "{all: [l, r]}", more="when: x > 1 and x < 3"))
    assert "x does not say which event" in only(text).what


def test_a_key_is_a_field_not_a_type() -> None:
    text = mesh(agent("a", "in", "order.priced") + agent("z", "order.priced", more="key: order.priced.id"))
    assert (only(text).line, only(text).remedy) == (7, "Write id")


# ---------------------------------------------------------------------------------------------------------- numbers


@pytest.mark.parametrize(
    ("limits", "more", "what"),
    [
        ("{deadline: 10s}", "timeout: 11s", "agents.a.timeout: 11s is longer than a run may take, 10s"),
        ("{budget: {usd: 0.5}}", "reserve: {usd: 0.6}", "agents.a.reserve.usd: 0.6 is more than the budget of a run"),
        (
            "{budget: {tokens: 5}}",
            "reserve: {tokens: 6}",
            "agents.a.reserve.tokens: 6 is more than the budget of a run",
        ),
        ("{}", "retry: {first: 2s, max: 1s}", "agents.a.retry.first: 2s is longer than retry.max, 1s"),
        ("{}", "retry: {first: 20s}", "agents.a.retry.first: 20s is longer than retry.max, 10s"),
    ],
)
def test_limits_of_an_agent_must_fit_into_those_of_the_run(limits: str, more: str, what: str) -> None:
    problem = only(mesh(agent("a", "in", more=more), limits=limits))
    assert problem.line == 6
    assert problem.what.startswith(what)


@pytest.mark.parametrize(
    ("limits", "more"),
    [
        ("{deadline: 10s}", "timeout: 10s"),
        ("{deadline: 10s}", "lanes: 1"),
        ("{budget: {usd: 0.5}}", "reserve: {usd: 0.5}"),
        ("{budget: {usd: 0.5}}", "reserve: {tokens: 99999}"),
        ("{}", "retry: {first: 1s, max: 1s}"),
    ],
)
def test_limits_that_just_fit_and_defaults_are_no_problem(limits: str, more: str) -> None:
    load(mesh(agent("a", "in", more=more), limits=limits))


# ------------------------------------------------------------------------------------------------------------ graph


def test_a_cycle_needs_a_cap_of_its_own() -> None:
    ring = agent("a", "[in, z]", "x", "{cap}") + agent("b", "x", "y") + agent("c", "y", "z")
    problem = only(mesh(ring.replace(", {cap}", ""), limits="{visits_max: 3}"))
    assert (problem.line, problem.what) == (6, "cycle without a cap: a -> b -> c -> a")
    assert "visits_max" in problem.remedy
    load(mesh(ring.replace("{cap}", "visits_max: 3")))


def test_an_agent_that_consumes_its_own_events_is_a_cycle() -> None:
    assert only(mesh(agent("a", "[in, x]", "x"))).what == "cycle without a cap: a -> a"


def test_a_cap_on_one_cycle_does_not_excuse_another() -> None:
    text = agent("a", "[in, y, z]", "x") + agent("b", "x", "y", "visits_max: 2") + agent("c", "x", "z")
    assert only(mesh(text)).what == "cycle without a cap: a -> c -> a"


def test_every_loose_cycle_is_named_at_once() -> None:
    text = agent("a", "[in, x]", "x") + agent("b", "[in, y]", "y") + agent("c", "[in, z]", "z", "visits_max: 1")
    assert [p.what for p in problems(mesh(text))] == ["cycle without a cap: a -> a", "cycle without a cap: b -> b"]


def chain(length: int) -> str:
    return agent("n0", "in", "t0") + "".join(
        agent(f"n{n}", f"t{n - 1}", f"t{n}" if n < length - 1 else "[]") for n in range(1, length)
    )


def test_the_longest_way_must_be_allowed() -> None:
    load(mesh(chain(4), limits="{depth_max: 4}"))
    problem = only(mesh(chain(5), limits="{depth_max: 4}"))
    assert problem.line == 1
    assert problem.what == (
        "mesh.limits.depth_max: the longest path has 5 agents, at most 4 are allowed: n0 -> n1 -> n2 -> n3 -> n4"
    )


def test_a_cycle_is_no_endless_way() -> None:
    load(mesh(agent("a", "[in, y]", "x", "visits_max: 9") + agent("b", "x", "y"), limits="{depth_max: 1}"))


def test_a_large_mesh_is_proved_quickly() -> None:
    """Without quadratic steps: 500 agents in a chain, each also hearing the one before the last."""
    lines = agent("n0", "in", "t0") + "".join(
        agent(f"n{n}", f"[t{n - 1}{f', t{n - 2}' if n > 1 else ''}]", f"t{n}") for n in range(1, 500)
    )
    topology = load(mesh(lines, egress="t499", limits="{depth_max: 500}"))
    names: Mapping[str, AgentSpec] = topology.agents
    assert len(names) == 500
    assert not any(spec.cyclic for spec in names.values())


def test_a_mesh_of_a_thousand_mistakes_is_refused_in_time() -> None:
    """Guessing is bounded, else 900 unknown types would each be compared with 900 others."""
    lines = "".join(agent(f"n{n}", f"heard.by.{n}", f"told.by.{n}") for n in range(900))
    assert len(problems(mesh(lines))) == 1 + 2 * 900


def test_a_mesh_where_every_agent_consumes_every_type_is_refused_in_time() -> None:
    found = problems(mesh("".join(agent(f"n{n}", "[in, x]", "x") for n in range(100))))
    assert [p.what for p in found][:2] == ["cycle without a cap: n0 -> n0", "cycle without a cap: n1 -> n1"]
