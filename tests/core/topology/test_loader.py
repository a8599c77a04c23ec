"""topics.yaml: what its words mean, what is refused, that one report names everything."""

import pytest

from mesh.core.errors import Problem, TopologyInvalid
from mesh.core.topology.loader import load
from mesh.core.topology.model import DAY_MS, AgentSpec, BreakerRule, Limits, Retention, Retry, TopicRule

ORDERS = """\
mesh:
  name: order-desk
  limits: {depth_max: 8, tasks_max: 64, visits_max: 3, deadline: 60s, budget: {usd: 0.50, tokens: 20000}}
topics:                                   # the domain topics at the edge of the mesh
  orders.placed:  {ingress: order.placed, key: order_id, id: order_id, partitions: 6}
  orders.decided: {egress: [order.fulfilled, order.rejected]}
agents:
  inventory:  {run: "agents.orders.inventory:check", on: order.placed, timeout: 2s,
               emits: [stock.reserved, order.rejected]}
  pricing:    {run: "agents.orders.pricing:price",   on: order.placed, emits: order.priced, lanes: 256}
  fraud:      {run: "agents.orders.fraud:score",     on: order.placed, emits: fraud.scored}
  fulfilment: {run: "agents.orders.fulfilment:ship", on: {all: [stock.reserved, order.priced, fraud.scored]},
               when: "fraud.scored.score < 0.7", emits: order.fulfilled}
"""

SMALL = """\
topics:
  in: {ingress: a}
  out: {egress: z}
agents:
  one:
    run: m:f
    on: a
    emits: z
"""


def problems(text: str | bytes) -> tuple[Problem, ...]:
    with pytest.raises(TopologyInvalid) as caught:
        load(text)
    return caught.value.problems


def small(agent: str, *, mesh: str = "") -> str:
    return (f"mesh: {mesh}\n" if mesh else "") + SMALL + "".join(f"    {line}\n" for line in agent.splitlines())


def test_the_orders_example_of_the_design_loads() -> None:
    topology = load(ORDERS, path="here/topics.yaml")
    assert (topology.name, topology.prefix, topology.inbox_partitions) == ("order-desk", "order-desk", 6)
    assert topology.path == "here/topics.yaml"
    assert topology.limits == Limits(
        depth_max=8, tasks_max=64, visits_max=3, deadline_ms=60_000, usd_micros_max=500_000, tokens_max=20_000
    )
    assert list(topology.agents) == ["inventory", "pricing", "fraud", "fulfilment"]
    assert topology.agents["inventory"] == AgentSpec(
        "inventory",
        "agents.orders.inventory:check",
        ("order.placed",),
        ("stock.reserved", "order.rejected"),
        timeout_ms=2_000,
        line=8,
    )
    assert topology.agents["pricing"].lanes == 256
    fulfilment = topology.agents["fulfilment"]
    assert fulfilment.join
    assert str(fulfilment.when) == "fraud.scored.score < 0.7"
    assert fulfilment.when is not None
    assert fulfilment.when.bound == ("fraud.scored",)
    assert topology.topics["orders.placed"] == TopicRule(
        "orders.placed", "order.placed", key="order_id", id="order_id", partitions=6, line=5
    )


def test_what_is_not_said_has_its_default() -> None:
    topology = load(SMALL)
    assert topology.limits == Limits()
    assert (topology.name, topology.chaos) == ("mesh", False)
    assert topology.agents["one"] == AgentSpec("one", "m:f", ("a",), ("z",), line=5)
    assert topology.topics["in"] == TopicRule("in", "a", line=2)


def test_every_word_of_an_agent() -> None:
    topology = load(
        small(
            """\
timeout: 1ms
when: x == 1
retry: {attempts: 5, first: 100ms, factor: 1.5, max: 2s, jitter: 0}
visits_max: 4
lanes: 7
cache: 1h
key: order."odd name"
reserve: {usd: 0.01, tokens: 500}"""
        )
    )
    spec = topology.agents["one"]
    assert spec.timeout_ms == 1
    assert spec.retry == Retry(5, 100, 1.5, 2_000, 0.0)
    assert (spec.visits_max, spec.lanes, spec.key) == (4, 7, 'order."odd name"')
    assert spec.cache_ms == 3_600_000
    assert (spec.reserve_usd_micros, spec.reserve_tokens) == (10_000, 500)
    assert spec.when is not None
    assert spec.when.holds({"a": {"x": 1}})


def test_every_word_of_the_mesh() -> None:
    limits = (
        "{depth_max: 1, tasks_max: 2, fanout_max: 3, visits_max: 4, deadline: 5m, payload_max: 64KB, state_max: 1MB,"
    )
    limits += " budget: {usd: 1, tokens: 9}, cascade_max: 5, pause: 2h}"
    mesh = f"{{name: m, prefix: eu.desk, inbox: {{partitions: 12}}, chaos: true, limits: {limits}}}"
    topology = load(small("", mesh=mesh))
    assert (topology.name, topology.prefix, topology.inbox_partitions, topology.chaos) == ("m", "eu.desk", 12, True)
    assert topology.limits == Limits(
        *(1, 2, 3, 4, 300_000),
        payload_bytes_max=65_536,
        usd_micros_max=1_000_000,
        tokens_max=9,
        cascade_max=5,
        pause_ms=7_200_000,
    )


def test_retention_by_kind_of_topic() -> None:
    kept = "{inbox: 1h, outcomes: forever, dead: 365d, tasks: 2d}"
    topology = load(
        small("", mesh=f"{{retention: {kept}}}").replace("in: {ingress: a}", "in: {ingress: a, retention: 3d}")
    )
    assert topology.retention == Retention(3_600_000, -1, 365 * DAY_MS, 2 * DAY_MS)
    assert topology.topics["in"].retention_ms == 3 * DAY_MS
    default = load(small(""))
    assert default.retention == Retention(30 * DAY_MS, 30 * DAY_MS, 90 * DAY_MS, 7 * DAY_MS)
    assert default.topics["in"].retention_ms == 7 * DAY_MS
    with pytest.raises(TopologyInvalid, match='expected a retention of at least 1h, or forever, got "59m"'):
        load(small("", mesh="{retention: {dead: 59m}}"))


def test_a_list_of_types_subscribes_to_any_and_all_needs_all() -> None:
    text = SMALL.replace("in: {ingress: a}", "in: {ingress: a}\n  in2: {ingress: b}")
    either, both = load(text.replace("on: a", "on: [a, b]")), load(text.replace("on: a", "on: {all: [a, b]}"))
    assert (either.agents["one"].on, either.agents["one"].join) == (("a", "b"), False)
    assert (both.agents["one"].on, both.agents["one"].join) == (("a", "b"), True)


def test_an_agent_may_emit_nothing() -> None:
    text = SMALL.replace("  out: {egress: z}\n", "")
    for emits in ("", "    emits: []\n"):
        assert load(text.replace("    emits: z\n", emits)).agents["one"].emits == ()


def test_anchors_and_aliases_are_taken() -> None:
    again = small("retry: &r {attempts: 9}") + "  two: {run: m:g, on: a, emits: z, retry: *r}\n"
    assert load(again).agents["two"].retry.attempts_max == 9


TEN = """\
mesh:
  limits: {deadline: 60}
topics:
  orders.placed: {ingress: order.placed, id: order_id}
  orders.decided: {egress: [order.fulfilled]}
agents:
  inventory:
    run: agents.orders.inventory:check
    on: order.plcaed
    emits: [stock.reserved, stock.counted]
    timout: 2s
  pricing: {run: "agents.orders.pricing:price", on: order.placed, emits: order.priced, fallback: [x]}
  audit: {run: "agents.audit:write", on: payment.settled}
  fulfilment:
    run: agents.orders.fulfilment
    on: {all: [stock.reserved, order.priced, parcel.booked]}
    when: order.priced.usd = 3
    emits: order.fulfilled
  asking: {run: "m:f", on: [order.placed, answer], emits: question}
  answering: {run: "m:f", on: question, emits: answer}
"""


def test_ten_mistakes_are_one_report_of_ten_lines() -> None:
    expected = [
        (2, "mesh.limits.deadline: invalid unit", "write 60s"),
        (9, "unknown type order.plcaed", "Did you mean order.placed?"),
        (10, "no agent subscribes to stock.counted", "egress"),
        (11, 'unknown key "timout"', "Did you mean timeout?"),
        (12, "agents.pricing.fallback: no agent is called x", "Declare it, or remove it"),
        (
            13,
            "no topic has it as `ingress`, so audit is never triggered",
            "`ingress: payment.settled`",
        ),
        (15, "expected module:function", "Write it like"),
        (
            16,
            "no topic has it as `ingress`, so the join of fulfilment can never be met",
            "Let an",
        ),
        (17, 'unexpected "=" at column 18', "Write == to compare"),
        (19, "cycle without a cap: asking -> answering -> asking", "visits_max"),
    ]
    with pytest.raises(TopologyInvalid) as caught:
        load(TEN, path="mine.yaml")
    lines = str(caught.value).splitlines()
    assert len(lines) == len(expected)
    for line, (number, what, remedy) in zip(lines, expected, strict=True):
        assert line.startswith(f"mine.yaml:{number}: ")
        assert what in line
        assert remedy in line


def test_fallbacks_breakers_and_final_errors_are_read() -> None:
    words = "fallback: [two]\nbreaker: {failures: 2, open: 5s}\nretry: {final: [schema, ValueError, a.b.Broken]}"
    spec = load(small(words) + '  two: {run: "m:f"}\n').agents["one"]
    assert spec.fallback == ("two",)
    assert spec.breaker == BreakerRule(2, 5_000)
    assert spec.retry.final == ("schema", "ValueError", "a.b.Broken")


def test_an_agent_without_subscriptions_must_be_a_fallback() -> None:
    assert [p.what for p in problems(small("") + '  two: {run: "m:f"}\n')] == ["agents.two: missing key `on`"]


def test_no_agent_is_its_own_fallback() -> None:
    assert [p.what for p in problems(small("fallback: one"))] == ["agents.one.fallback: one cannot be its own fallback"]


def test_a_condition_may_be_false_for_events_that_its_agent_ignores() -> None:
    assert load(small("when: x == 1\notherwise: ignore")).agents["one"].ignores
    assert not load(small("when: x == 1")).agents["one"].ignores


def test_a_join_may_ignore_further_events_of_a_type() -> None:
    text = small("otherwise: ignore").replace("on: a", "on: {all: [a, b]}")
    assert [p.what for p in problems(text) if "otherwise" in p.what] == []


@pytest.mark.parametrize(
    ("word", "what"),
    [
        ("when: x == 1\notherwise: drop", "agents.one.otherwise: invalid value"),
        ("otherwise: ignore", "agents.one.otherwise: it needs a `when` that may be false"),
    ],
)
def test_what_follows_where_a_condition_is_false_is_checked(word: str, what: str) -> None:
    (problem,) = problems(small(word))
    assert problem.what.startswith(what)


@pytest.mark.parametrize("word", ["until: x == 1", "human: inbox"])
def test_words_of_the_design_that_are_not_built_yet_say_so(word: str) -> None:
    what = f"agents.one.{word.split(':')[0]}: not supported yet in this version"
    assert [p.what for p in problems(small(word))] == [what]


@pytest.mark.parametrize(
    ("on", "word"),
    [
        ("{gather: a, of: part, need: 80%, within: 30s}", "gather"),
        ("{vote: a, of: [a, b], rule: majority, arbiter: judge}", "vote"),
        ('{board: "risk/*", when: x == 1}', "board"),
        ("{need: all}", "need"),
    ],
)
def test_patterns_of_the_design_that_are_not_built_yet_are_one_problem(on: str, word: str) -> None:
    text = SMALL.replace("on: a", f"on: {on}").replace("emits: z", "emits: z\n  two: {run: m:f, on: a}")
    assert [p.what for p in problems(text)] == [f"agents.one.on.{word}: not supported yet in this version"]


def test_a_human_in_the_place_of_run_is_not_a_missing_run_too() -> None:
    assert [p.line for p in problems(SMALL.replace("run: m:f", "human: inbox"))] == [6]


@pytest.mark.parametrize(
    ("old", "new", "line", "what", "remedy"),
    [
        ("agents:", "agent:", 4, 'top level: unknown key "agent"', "Did you mean agents?"),
        ("on: a", "on: []", 7, "agents.one.on: no type", "Name one"),
        ("on: a", "on: {}", 7, "agents.one.on: no type", "Write a type"),
        ("on: a", "on: {any: [a]}", 7, "unknown key `any`", "plain list"),
        ("on: a", "on: {every: [a]}", 7, 'unknown key "every"', "{all:"),
        ("on: a", "on: {all: [a]}", 7, "a join needs two types", "`on: a`"),
        ("on: a", "on: {all: a}", 7, "a join needs two types", "`on: a`"),
        ("on: a", "on: {all: []}", 7, "agents.one.on: no type", "Name one"),
        ("on: a", "on: [a, a]", 7, "agents.one.on: a is listed twice", "Remove"),
        ("on: a", "on: [[a]]", 7, "expected a single value, got a list", "shape"),
        ("on: a", "on: a, b", 7, "a type of event", "list"),
        ("on: a", "on: mesh.join", 7, "are reserved", "another"),
        ("on: a", "on: " + "x" * 129, 7, "a type of event", "list"),
        ("    on: a\n", "", 5, "agents.one: missing key `on`", "Write `on"),
        ("    run: m:f\n", "", 5, "agents.one: missing key `run`", "Write `run"),
        ("run: m:f", "run: m.f", 6, "expected module:function", "Write it like"),
        ("run: m:f", "run:", 6, "agents.one.run: no value", "Write one"),
        ("emits: z", "emits: [z, z]", 8, "z is listed twice", "Remove"),
        ("emits: z", "emits: {z: 1}", 8, "a name or a list of names", "shape"),
        ("  one:", "  One:", 5, "an agent's name", "Choose"),
        ("  one:", "  " + "a" * 65 + ":", 5, "an agent's name", "Choose"),
        ("  in:", "  in put:", 2, "a topic's name", "Kafka"),
        ("  in:", "  ..:", 2, "a topic's name", "Kafka"),
        ("{ingress: a}", "{ingress: a, partitions: 0}", 2, "topics.in.partitions: invalid value", "1 or more"),
        ("{ingress: a}", "{ingress: a, key: a..b}", 2, "is not the path of a field at column 2", "order.id"),
        ("{ingress: a}", "{ingress: a, compact: true}", 2, 'unknown key "compact"', "Known here"),
        ("{ingress: a}", "{ingress: [a]}", 2, "expected a single value", "shape"),
        ("{egress: z}", "{egress: []}", 3, "topics.out.egress: no type", "Name one"),
        ("{egress: z}", "{egress: z}\n  x: {partitions: 3}", 4, "neither ingress nor egress", "Write `ingress"),
    ],
)
def test_a_mistake_is_one_problem_with_line_and_remedy(old: str, new: str, line: int, what: str, remedy: str) -> None:
    assert old in SMALL
    # That a type is not heard any more is true, but follows from the mistake.
    found = [p for p in problems(SMALL.replace(old, new)) if "no agent subscribes to" not in p.what]
    assert [(p.line, what in p.what, remedy in p.remedy) for p in found] == [(line, True, True)], found


@pytest.mark.parametrize(
    ("agent", "what", "remedy"),
    [
        ("timeout: 5", "agents.one.timeout: invalid unit", "write 5s"),
        ("timeout: 0s", "agents.one.timeout: value too small", "larger"),
        ("retry: 3", "agents.one.retry: expected a mapping of attempts", "shape"),
        ("retry: {attempts: 0}", "agents.one.retry.attempts: invalid value", "1 or more"),
        ("retry: {factor: 0.5}", "agents.one.retry.factor: invalid value", "1 or more"),
        ("retry: {jitter: 2}", "agents.one.retry.jitter: invalid value", "1 or less"),
        ("retry: {first: 1}", "agents.one.retry.first: invalid unit", "1s"),
        ("visits_max: 0", "agents.one.visits_max: invalid value", "1 or more"),
        ("key: a b", "agents.one.key", "order.id"),
        ("reserve: {eur: 1}", 'agents.one.reserve: unknown key "eur"', "Known here: usd, tokens"),
        ("when: x = 1", 'agents.one.when: unexpected "=" at column 3', "=="),
        ("when: [x]", "agents.one.when: expected a single value", "shape"),
    ],
)
def test_a_wrong_value_of_an_agent(agent: str, what: str, remedy: str) -> None:
    found = problems(small(agent))
    assert [(p.line, what in p.what, remedy in p.remedy) for p in found] == [(9, True, True)], found


@pytest.mark.parametrize(
    ("mesh", "what"),
    [
        ("{name: a b}", "mesh.name: invalid name"),
        ("{prefix: a.}", "mesh.prefix: invalid name"),
        ("{prefix: ''}", "mesh.prefix: invalid name"),
        ("{inbox: 6}", "mesh.inbox: expected a mapping of partitions"),
        ("{inbox: {partitions: 5000}}", "mesh.inbox.partitions: invalid value"),
        ("{limits: {payload_max: 64}}", "mesh.limits.payload_max: invalid unit"),
        ("{limits: {state_max: 0KB}}", "mesh.limits.state_max: value too small"),
        ("{limits: {budget: 0.5}}", "mesh.limits.budget: expected a mapping of usd, tokens"),
        ("{chaos: yes}", "mesh.chaos: invalid value; expected true or false"),
        ("[a]", "mesh: expected a mapping"),
    ],
)
def test_a_wrong_value_of_the_mesh(mesh: str, what: str) -> None:
    found = problems(small("", mesh=mesh))
    assert [(p.line, what in p.what) for p in found] == [(1, True)], found


@pytest.mark.parametrize(
    ("text", "line", "what"),
    [
        ("", 1, "is empty"),
        ("[]", 1, "top level: expected a mapping"),
        ("mesh: {name: x}", 1, "agents: none is declared"),
        ("mesh:\nagents:", 2, "agents: none is declared"),
        ("agents:\n\tx: 1", 2, "not YAML"),
        (b"agents:\n  \xff: 1", 2, "not UTF-8: byte 0xff"),
        ("agents: !!python/name:os.system x", 1, "is not supported"),
    ],
)
def test_a_file_that_is_no_mesh(text: str | bytes, line: int, what: str) -> None:
    found = problems(text)
    assert any((p.line, what in p.what) == (line, True) for p in found), found


def test_too_many_agents_are_one_problem() -> None:
    text = "agents:\n" + "".join(f"  n{n}: {{run: m:f, on: a}}\n" for n in range(1_001))
    assert [(p.line, p.what) for p in problems(text)] == [(1, "agents: 1001 agents, at most 1000")]


def test_bytes_are_read_as_utf8_with_or_without_a_mark() -> None:
    assert load(SMALL.encode()) == load(SMALL)
    assert load(SMALL.encode("utf-8-sig")) == load(SMALL)


def test_a_misspelt_type_is_one_problem_not_two() -> None:
    text = ORDERS.replace("emits: order.priced", "emits: order.prised")
    assert [(p.line, p.remedy.split("?")[0]) for p in problems(text)] == [(12, "Did you mean order.prised")]
