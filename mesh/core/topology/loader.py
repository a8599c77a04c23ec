"""Read topics.yaml: text → Topology, or every problem at once.

`yaml_nodes` reads YAML, `fields` reads mappings and values, `units` reads values with units. This file defines the
words of the language and the values that each allows. `validation` checks what the declarations mean together. A value
that cannot be read is replaced by its default, so that reading continues and one report names every problem.
"""

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from mesh.core.errors import InvalidInput, Problem, TopologyInvalid
from mesh.core.expression.condition import parse
from mesh.core.expression.field_path import excerpt, parse_path
from mesh.core.topology.alert_rules import read_alerts
from mesh.core.topology.digest import digest_of
from mesh.core.topology.fields import LATER, FieldReader, Fields
from mesh.core.topology.model import (
    TOPIC_RETENTION_MS,
    AgentSpec,
    BreakerRule,
    Limits,
    Retention,
    Retry,
    TopicRule,
    Topology,
)
from mesh.core.topology.units import decimal, duration_ms, flag, retention_ms, size_bytes, usd_micros, whole
from mesh.core.topology.validation import DeclaredTopology, validate
from mesh.core.topology.yaml_nodes import Entries, Items, Node, Scalar, read, texts_in

TOP_WORDS: Final = ("mesh", "topics", "agents", "alerts")
MESH_WORDS: Final = ("name", "prefix", "inbox", "limits", "retention", "chaos")
LIMIT_WORDS: Final = (
    *("depth_max", "tasks_max", "fanout_max", "visits_max"),
    *("deadline", "payload_max", "state_max", "budget", "cascade_max", "pause"),
)
RETENTION_WORDS: Final = ("inbox", "outcomes", "dead", "tasks")
MONEY_WORDS: Final = ("usd", "tokens")
TOPIC_WORDS: Final = ("ingress", "egress", "key", "id", "partitions", "join", "order", "retention")
AGENT_WORDS: Final = (
    *("run", "on", "when", "emits", "timeout", "retry", "fallback", "breaker"),
    *("visits_max", "lanes", "key", "reserve", "cache", "otherwise", "faust"),
)
RETRY_WORDS: Final = ("attempts", "first", "factor", "max", "jitter", "final")
BREAKER_WORDS: Final = ("failures", "open")
AGENT_WORDS_LATER: Final = ("until", "human")
ON_WORDS_LATER: Final = ("gather", "vote", "board")
ON_WORDS_BELOW_LATER: Final = ("of", "need", "within", "rule", "arbiter", "when")
"""Words beside one of ON_WORDS_LATER. They get no problem of their own, because one problem is enough."""

PARTITIONS_MAX: Final = 1_000
AGENTS_MAX: Final = 1_000
COUNT_MAX: Final = 1_000_000
TOKENS_MAX: Final = 1_000_000_000_000


def load(text: str | bytes, *, path: str = "topics.yaml") -> Topology:
    """Read and validate a mesh. Raises TopologyInvalid with all problems, by line. `path`: the file that they name."""
    root, problems = read(_decode(text, path))
    if root is None:
        nothing = Problem(1, "the file is empty", "Write `mesh:`, `topics:` and `agents:`")
        raise TopologyInvalid(path, sorted(set(problems)) or [nothing])
    draft, problems = _read_declared(root, path, problems)
    topology, contradictions = validate(draft)
    if problems or contradictions:
        raise TopologyInvalid(path, sorted({*problems, *contradictions}))
    return replace(topology, digest=digest_of(topology))


def _decode(text: str | bytes, path: str) -> str:
    if isinstance(text, str):
        return text
    try:
        return text.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = text.count(b"\n", 0, error.start) + 1
        what = f"not UTF-8: byte 0x{text[error.start]:02x}"
        raise TopologyInvalid(path, [Problem(line, what, "Save the file as UTF-8")]) from error


def _read_declared(root: Node, path: str, problems: list[Problem]) -> tuple[DeclaredTopology, list[Problem]]:
    reader = _Declarations(problems)
    top = reader.fields("", root, TOP_WORDS)
    topology = reader.mesh(top.get("mesh"))
    topics = reader.topics(top.get("topics"))
    agents = reader.agents(top.get("agents"))
    if not agents and not reader.problems:
        reader.add(reader.lines.get("agents", root.line), "agents: none is declared", "Declare one under `agents:`")
    alerts = read_alerts(reader, top.get("alerts"), agents)
    topology = replace(topology, topics=topics, agents=agents, path=path, alerts=alerts)
    return DeclaredTopology(topology, reader.lines, frozenset(reader.unread)), reader.problems


class _Declarations(FieldReader):
    """A reader of the first three sections."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__(problems)
        self.unread: set[str] = set()
        """Words that may mean types of events but could not be read."""
        self.fallback_names: set[str] = set()
        """Agents named as a fallback. They need no `on`."""

    def mesh(self, node: Node | None) -> Topology:
        fields = self.fields("mesh", node, MESH_WORDS)
        inbox = self.fields("mesh.inbox", fields.get("inbox"), ("partitions",))
        name: str = self.value(fields, "mesh", "name", mesh_name, "mesh")
        return Topology(
            name=name,
            digest="",
            limits=self.limits(fields.get("limits")),
            agents={},
            topics={},
            prefix=self.value(fields, "mesh", "prefix", prefix, name),
            inbox_partitions=self.value(inbox, "mesh.inbox", "partitions", whole(1, PARTITIONS_MAX), 6),
            chaos=self.value(fields, "mesh", "chaos", flag, False),
            retention=self.retention(fields.get("retention")),
        )

    def retention(self, node: Node | None) -> Retention:
        place, default = "mesh.retention", Retention()
        fields = self.fields(place, node, RETENTION_WORDS)
        return Retention(
            inbox_ms=self.value(fields, place, "inbox", retention_ms, default.inbox_ms),
            outcomes_ms=self.value(fields, place, "outcomes", retention_ms, default.outcomes_ms),
            dead_ms=self.value(fields, place, "dead", retention_ms, default.dead_ms),
            tasks_ms=self.value(fields, place, "tasks", retention_ms, default.tasks_ms),
        )

    def limits(self, node: Node | None) -> Limits:
        place, default = "mesh.limits", Limits()
        fields = self.fields(place, node, LIMIT_WORDS)
        count, size = whole(1, COUNT_MAX), at_least(1, size_bytes)
        usd, tokens = self.money(f"{place}.budget", fields.get("budget"))
        return Limits(
            depth_max=self.value(fields, place, "depth_max", whole(1, 1_000), default.depth_max),
            tasks_max=self.value(fields, place, "tasks_max", count, default.tasks_max),
            fanout_max=self.value(fields, place, "fanout_max", count, default.fanout_max),
            visits_max=self.value(fields, place, "visits_max", count, default.visits_max),
            deadline_ms=self.value(fields, place, "deadline", at_least(1, duration_ms), default.deadline_ms),
            payload_bytes_max=self.value(fields, place, "payload_max", size, default.payload_bytes_max),
            state_bytes_max=self.value(fields, place, "state_max", size, default.state_bytes_max),
            usd_micros_max=usd,
            tokens_max=tokens,
            cascade_max=self.value(fields, place, "cascade_max", count, default.cascade_max),
            pause_ms=self.value(fields, place, "pause", at_least(1, duration_ms), default.pause_ms),
        )

    def money(self, place: str, node: Node | None) -> tuple[int | None, int | None]:
        fields = self.fields(place, node, MONEY_WORDS)
        usd: int | None = self.value(fields, place, "usd", usd_micros, None)
        tokens: int | None = self.value(fields, place, "tokens", whole(0, TOKENS_MAX), None)
        return usd, tokens

    def topics(self, node: Node | None) -> dict[str, TopicRule]:
        found = {}
        for name, value in self.entries("topics", node, "a mapping of topic names").items():
            place, line = f"topics.{name}", self.lines[f"topics.{name}"]
            if not self.named("topics", name, line, topic_name):
                self.unread.update(texts_in(value))
                continue
            fields = self.fields(place, value, TOPIC_WORDS)
            if not fields.keys() & {"ingress", "egress"}:
                what = f"{place}: neither ingress nor egress, so it would not be used"
                self.add(line, what, "Write `ingress: TYPE` for arriving events, or `egress: TYPE` for leaving ones")
            ingress: str | None = self.value(fields, place, "ingress", type_name, None)
            if ingress is None:
                self.note_unread(fields.get("ingress"))
            found[name] = TopicRule(
                name=name,
                ingress=ingress,
                egress=self.types(fields, place, "egress", empty_allowed=False),
                key=self.value(fields, place, "key", path_text, None),
                id=self.value(fields, place, "id", path_text, None),
                partitions=self.value(fields, place, "partitions", whole(1, PARTITIONS_MAX), 6),
                line=line,
                join=self.value(fields, place, "join", flag, False),
                ordered=self.value(fields, place, "order", order_word, False),
                retention_ms=self.value(fields, place, "retention", retention_ms, TOPIC_RETENTION_MS),
            )
        return found

    def agents(self, node: Node | None) -> dict[str, AgentSpec]:
        found = {}
        declared = self.entries("agents", node, "a mapping of agent names")
        if len(declared) > AGENTS_MAX:
            what = f"agents: {len(declared)} agents, at most {AGENTS_MAX}"
            self.add(self.lines["agents"], what, "Split the mesh: what leaves one by an egress topic may enter another")
            return {}
        for value in declared.values():
            chain = value.entries.get("fallback") if isinstance(value, Entries) else None
            self.fallback_names.update(() if chain is None else texts_in(chain))
        for name, value in declared.items():
            if self.named("agents", name, self.lines[f"agents.{name}"], agent_name):
                found[name] = self.agent(name, value)
            else:
                self.unread.update(texts_in(value))
        return found

    def agent(self, name: str, node: Node) -> AgentSpec:
        place, line, default = f"agents.{name}", self.lines[f"agents.{name}"], AgentSpec(name, "", (), ())
        fields = self.fields(place, node, AGENT_WORDS, AGENT_WORDS_LATER)
        for word, example in (("run", '"module:function"'), ("on", "order.placed")):
            optional = isinstance(node, Entries) and word == "run" and "human" in node.entries
            optional = optional or (word == "on" and name in self.fallback_names)
            if word not in fields and not optional:
                self.add(line, f"{place}: missing key `{word}`", f"Write `{word}: {example}`")
        on, join = self.on(f"{place}.on", fields.get("on"))
        if "otherwise" in fields and "when" not in fields and not join:
            what = f"{place}.otherwise: it needs a `when` that may be false"
            self.add(self.lines[f"{place}.otherwise"], what, "Remove it, or add a `when`")
        usd, tokens = self.money(f"{place}.reserve", fields.get("reserve"))
        count = whole(1, COUNT_MAX)
        return AgentSpec(
            name=name,
            run=self.value(fields, place, "run", function_name, ""),
            on=on,
            emits=self.types(fields, place, "emits"),
            join=join,
            when=self.value(fields, place, "when", parse, None),
            timeout_ms=self.value(fields, place, "timeout", at_least(1, duration_ms), default.timeout_ms),
            retry=self.retry(f"{place}.retry", fields.get("retry")),
            fallback=self.names(f"{place}.fallback", fields["fallback"], agent_name) if "fallback" in fields else (),
            breaker=self.breaker(f"{place}.breaker", fields["breaker"]) if "breaker" in fields else None,
            visits_max=self.value(fields, place, "visits_max", count, None),
            lanes=self.value(fields, place, "lanes", whole(1, 100_000), default.lanes),
            cache_ms=self.value(fields, place, "cache", at_least(1, duration_ms), None),
            key=self.value(fields, place, "key", path_text, None),
            reserve_usd_micros=usd or 0,
            reserve_tokens=tokens or 0,
            line=line,
            ignores=self.value(fields, place, "otherwise", ignore, False),
            faust=self.value(fields, place, "faust", topic_name, ""),
        )

    def on(self, place: str, node: Node | None) -> tuple[tuple[str, ...], bool]:
        """Return the types that an agent consumes, and whether it needs all of them."""
        if not isinstance(node, Entries):
            return ((), False) if node is None else (self.type_list(place, node, empty_allowed=False), False)
        self.lines.update((f"{place}.{key}", line) for key, line in node.key_lines.items())
        for key, line in node.key_lines.items():
            if key == "any":
                self.add(line, f"{place}: unknown key `any`", "Write a plain list: `on: [a, b]` subscribes to either")
            elif key in ON_WORDS_BELOW_LATER and node.entries.keys() & set(ON_WORDS_LATER):
                continue
            elif key in (*ON_WORDS_LATER, *ON_WORDS_BELOW_LATER):
                self.add(line, f"{place}.{key}: not supported yet in this version", LATER)
            elif key != "all":
                self.add(line, f"{place}: unknown key {excerpt(key)}", "Write a type, a list or `{all: [a, b]}`")
        needed = node.entries.get("all")
        if needed is None or len(node.entries) > 1:
            self.note_unread(node)
        if needed is None:
            if not node.entries:
                self.add(node.line, f"{place}: no type", "Write a type, a list of types or `{all: [a, b]}`")
            return (), False
        types = self.type_list(place, needed, empty_allowed=False)
        if len(types) == 1 and not (isinstance(needed, Items) and len(needed.items) > 1):
            remedy = f"Name a second one, or write `on: {types[0]}`"
            self.add(needed.line, f"{place}.all: a join needs two types", remedy)
        return types, True

    def types(self, fields: Fields, place: str, word: str, *, empty_allowed: bool = True) -> tuple[str, ...]:
        node = fields.get(word)
        return () if node is None else self.type_list(f"{place}.{word}", node, empty_allowed=empty_allowed)

    def type_list(self, place: str, node: Node, *, empty_allowed: bool) -> tuple[str, ...]:
        before = len(self.problems)
        found = self.names(place, node, type_name)
        if len(self.problems) > before:
            self.note_unread(node)
        elif not found and not empty_allowed:
            self.add(node.line, f"{place}: no type", "Name one, or remove the key")
        return found

    def retry(self, place: str, node: Node | None) -> Retry:
        fields, default = self.fields(place, node, RETRY_WORDS), Retry()
        return Retry(
            attempts_max=self.value(fields, place, "attempts", whole(1, 1_000), default.attempts_max),
            first_ms=self.value(fields, place, "first", duration_ms, default.first_ms),
            factor=self.value(fields, place, "factor", decimal(1, 100), default.factor),
            delay_ms_max=self.value(fields, place, "max", duration_ms, default.delay_ms_max),
            jitter=self.value(fields, place, "jitter", decimal(0, 1), default.jitter),
            final=self.names(f"{place}.final", fields["final"], error_name) if "final" in fields else (),
        )

    def breaker(self, place: str, node: Node) -> BreakerRule:
        fields, default = self.fields(place, node, BREAKER_WORDS), BreakerRule()
        return BreakerRule(
            failures_max=self.value(fields, place, "failures", whole(1, 1_000), default.failures_max),
            open_ms=self.value(fields, place, "open", at_least(1, duration_ms), default.open_ms),
        )

    def named(self, place: str, name: str, line: int, read: Callable[[str], str]) -> bool:
        """Return whether a key is a valid name."""
        return self.scalar(place, Scalar(line, name, plain=False), read) is not None

    def note_unread(self, node: Node | None) -> None:
        """Remember words that may mean types, so that these types are not reported as missing."""
        if node is not None:
            self.unread.update(part for text in texts_in(node) for part in re.split(r"[^A-Za-z0-9._-]+", text) if part)


# ------------------------------------------------------------------------------------------------------------ names


def _name(pattern: str, expected: str, remedy: str) -> Callable[[str], str]:
    compiled = re.compile(pattern, re.ASCII)

    def read(text: str) -> str:
        if not compiled.fullmatch(text):
            raise InvalidInput("invalid name", code="bad_name", expected=expected, got=excerpt(text), remedy=remedy)
        return text

    return read


agent_name = _name(
    r"[a-z][a-z0-9_-]{0,63}",
    "an agent's name: a lower-case letter, then up to 63 of a-z 0-9 _ -",
    "Choose such a name, like order-check",
)
mesh_name = _name(
    r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,62}[A-Za-z0-9_-])?",
    "a name of 1 to 64 characters out of A-Z a-z 0-9 . _ -, not ending in a dot",
    "Choose such a name, like order-desk",
)
prefix = _name(
    r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,62}[A-Za-z0-9_-])?",
    "the beginning of topic names: up to 64 of A-Z a-z 0-9 . _ -, not ending in a dot",
    "Choose one, like mesh",
)
topic_name = _name(
    r"(?!\.{1,2}$|__)[A-Za-z0-9._-]{1,249}",
    "a topic's name: 1 to 249 of A-Z a-z 0-9 . _ -, not beginning with __ (reserved by Kafka)",
    "Choose a name that Kafka accepts, like orders.placed",
)
function_name = _name(
    r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*:[A-Za-z_]\w*",
    "module:function",
    'Write it like "agents.orders.pricing:price"',
)
error_name = _name(
    r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*",
    "a reason code or the class of an exception",
    "Write one like schema, ValueError or package.module.Broken",
)
_type = _name(
    r"[A-Za-z0-9._-]{1,128}",
    "a type of event: 1 to 128 of A-Z a-z 0-9 . _ -",
    "Write a name like order.placed; several stand in a list, [a, b]",
)


def type_name(text: str) -> str:
    """Read a type of event that may be declared."""
    if text.startswith("mesh."):
        what, remedy = "invalid name: types that begin with `mesh.` are reserved", "Choose another name"
        raise InvalidInput(what, code="bad_name", got=excerpt(text), remedy=remedy)
    return _type(text)


def order_word(text: str) -> bool:
    """Read `order` of an ingress topic. Its only value is `key`: events of one key keep their order."""
    if text != "key":
        expected, remedy = "the word key", "Write `order: key`, or remove it"
        raise InvalidInput("unknown order", code="bad_value", expected=expected, got=excerpt(text), remedy=remedy)
    return True


def path_text(text: str) -> str:
    """Read the path of a payload field, as text."""
    return str(parse_path(text))


def ignore(text: str) -> bool:
    """Read `otherwise`, which applies where `when` is false. Its only value is `ignore`."""
    if text != "ignore":
        raise InvalidInput(
            "invalid value",
            code="bad_value",
            expected="otherwise: ignore",
            got=excerpt(text),
            remedy="Write `ignore`, or subscribe another agent to the type with the opposite `when`",
        )
    return True


def at_least(low: int, read: Callable[[str], int]) -> Callable[[str], int]:
    """Make a reader that refuses values below `low`."""

    def checked(text: str) -> int:
        value = read(text)
        if value < low:
            raise InvalidInput("value too small", code="bad_value", got=excerpt(text), remedy="Write a larger one")
        return value

    return checked
