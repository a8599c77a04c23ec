"""Validate a mesh before it runs: every type must be emitted, consumed and bounded.

Only certain mistakes are problems. Whether a type *can* occur depends on the declarations alone, never on the events
that a condition may let through. One mistake should be one problem, so its consequences are not reported: a type that
looks like a misspelt one counts as meant.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from mesh.core.errors import Problem
from mesh.core.expression.field_path import Path, parse_path
from mesh.core.suggest import nearest
from mesh.core.topology.graph import cycles, longest_path, shortest_cycle, without
from mesh.core.topology.limit_conflicts import find_conflicts
from mesh.core.topology.model import OWN_TOPICS, SERVICE_GROUPS, TASKS, AgentSpec, Row, TopicRule, Topology

TYPO_SIMILARITY_MIN: Final = 0.85
"""The least similarity at which a word counts as a misspelling of another, and not just as related."""
GUESSES_MAX: Final = 200
"""The largest number of words compared with all others, since the cost is the product; 200 suffice for a report."""
CYCLE_ROUNDS_MAX: Final = 20
"""The largest number of cycles through the same agents that one report names."""


@dataclass(frozen=True, slots=True)
class DeclaredTopology:
    """A topology as declared: without derived fields, its conditions not bound yet."""

    topology: Topology
    lines: Mapping[str, int] = field(default_factory=dict)
    """Place (`agents.fraud.timeout`, `agents.fraud.on[order.placed]`) → its line, for the places that were written."""
    unread: frozenset[str] = frozenset()
    """Words that may mean types but could not be read. Types that they resemble are not reported as missing."""

    def line(self, *places: str) -> int:
        """Return the line of the first of these places that was written, else 1."""
        return next((self.lines[place] for place in places if place in self.lines), 1)


def validate(draft: DeclaredTopology) -> tuple[Topology, list[Problem]]:
    """Return the topology with all derived fields, and every problem. Use the topology only if there are none."""
    validation = _Validation(draft)
    validation.check_names()
    validation.check_topics()
    validation.check_consumed_types()
    validation.check_emitted_types()
    validation.check_conditions()
    validation.check_keys()
    validation.problems.extend(find_conflicts(draft.topology, draft.line, draft.lines))
    validation.check_fallbacks()
    validation.check_starts()
    cyclic = validation.check_cycles()
    validation.check_depth()
    return _derive(draft.topology, cyclic), validation.problems


def _derive(declared: Topology, cyclic: frozenset[str]) -> Topology:
    agents = {
        name: replace(spec, cyclic=name in cyclic, when=None if spec.when is None else spec.when.bind(spec.on))
        for name, spec in declared.agents.items()
    }
    rows: dict[str, tuple[Row, ...]] = {}
    for spec in agents.values():
        row = Row(spec, spec.on if spec.join else ())
        for type in spec.on:
            rows[type] = (*rows.get(type, ()), row)
    return replace(
        declared,
        agents=agents,
        rows=rows,
        ingress={rule.ingress: rule for rule in declared.topics.values() if rule.ingress is not None},
        egress={type: rule for rule in declared.topics.values() for type in rule.egress},
        breaking=frozenset(name for name, spec in agents.items() if spec.breaker is not None),
    )


class _Validation:
    """The checks of one draft. Each adds to `problems`.

    `check_consumed_types` precedes `check_emitted_types`, since it finds the misspelt types.
    """

    def __init__(self, draft: DeclaredTopology) -> None:
        self.draft = draft
        self.declared = draft.topology
        self.agents: Mapping[str, AgentSpec] = draft.topology.agents
        self.problems: list[Problem] = []
        rules = draft.topology.topics.values()
        self.ingress_types = {rule.ingress: None for rule in rules if rule.ingress is not None}
        self.egress_types = {type: None for rule in rules for type in rule.egress}
        self.emitters = _by_type((spec.emits, spec.name) for spec in self.agents.values())
        self.subscribers = _by_type((spec.on, spec.name) for spec in self.agents.values())
        self.occurring = {**self.ingress_types, **dict.fromkeys(self.emitters)}
        self.known = {**self.occurring, **dict.fromkeys(self.subscribers), **self.egress_types}
        self.guesses = 0
        self.meant: set[str] = set()
        """Types that a misspelt word elsewhere probably means."""
        self.graph = {
            name: list(
                dict.fromkeys(
                    a for type in spec.emits for h in self.subscribers.get(type, ()) for a in self.with_fallbacks(h)
                )
            )
            for name, spec in self.agents.items()
        }

    def with_fallbacks(self, name: str) -> list[str]:
        """Return an agent and its fallbacks."""
        return [name, *(other for other in self.agents[name].fallback if other in self.agents)]

    def add(self, line: int, what: str, remedy: str) -> None:
        self.problems.append(Problem(line, what, remedy))

    def guess(self, word: str, known: Iterable[str], similarity_min: float = TYPO_SIMILARITY_MIN) -> str | None:
        self.guesses += 1
        return nearest(word, known, similarity_min) if self.guesses <= GUESSES_MAX else None

    # -------------------------------------------------------------------------------------------------------- names

    def check_names(self) -> None:
        """Check that no agent shares a consumer group with a service, and that no two meshes share a topic.

        All other names differ: an agent's name has no dot, so `<prefix>.tasks.<agent>` and `<prefix>.<agent>` are
        names of one mesh only.
        """
        for name in SERVICE_GROUPS:
            if name in self.agents:
                place, group = f"agents.{name}", self.declared.group(name)
                what = f"{place}: its consumer group {group} would be that of the mesh's own {name}"
                self.add(self.draft.line(place), what, f"Choose another name, like {name}-agent")
        prefix = self.declared.prefix
        if prefix.endswith(f".{TASKS}"):
            place, other = "mesh.prefix", prefix.removesuffix(f".{TASKS}")
            what = f"{place}: {prefix} ends with .{TASKS}, so {prefix}.inbox may also be the topic of an agent of a "
            what += f"mesh with the prefix {other}"
            line = self.draft.line(place, "mesh.name", "mesh")
            self.add(line, what, f"Write another `prefix` below `mesh:`, like {prefix.replace('.', '-')}")

    # ------------------------------------------------------------------------------------------------------- topics

    def check_topics(self) -> None:
        """Check topics: conflicts of names, conflicts of roles, and types with two topics of one direction."""
        own = self._own_topics()
        plain: dict[str, str] = {}
        ingress, egress = dict[str, str](), dict[str, str]()
        for rule in self.declared.topics.values():
            place = f"topics.{rule.name}"
            line = self.draft.line(place)
            # Kafka refuses two topics that differ only by dot and underscore: its metrics cannot tell them apart.
            same = rule.name.replace(".", "_")
            kept = "mesh." if self.declared.prefix == "mesh" else self.declared.tasks("")  # else the user may use it
            if rule.name.startswith(kept) or same in own:
                whose = own.get(same, f"{kept}*")
                self.add(line, f"{place}: the name belongs to the mesh's own topic {whose}", "Choose another name")
            elif same in plain:
                self.add(line, f"{place}: Kafka cannot distinguish it from topic {plain[same]}", "Choose another name")
            plain.setdefault(same, rule.name)
            if rule.ingress is not None and rule.egress:
                what = f"{place}: both ingress and egress, so events that leave would come in again"
                self.add(line, what, "Declare two topics")
            if rule.id is not None and rule.ingress is None:
                self.add(
                    self.draft.line(f"{place}.id", place), f"{place}.id: only ingress records get an id", "Remove it"
                )
            if rule.join and rule.ingress is None:
                what = f"{place}.join: only records of an ingress topic join runs"
                self.add(self.draft.line(f"{place}.join", place), what, "Remove it")
            if rule.ordered:
                self._check_ordered(rule, place)
            self._check_types(ingress, rule, "ingress", () if rule.ingress is None else (rule.ingress,))
            self._check_types(egress, rule, "egress", rule.egress)

    def _check_ordered(self, rule: TopicRule, place: str) -> None:
        """Check that an agent with a `key` consumes the events, since order is kept only up to such agents."""
        line, subscribers = self.draft.line(f"{place}.order", place), self.subscribers.get(rule.ingress or "", [])
        if rule.ingress is None:
            self.add(line, f"{place}.order: only records of an ingress topic have an order", "Remove it")
        elif subscribers and not any(self.agents[name].key for name in subscribers):
            what = f"{place}.order: no agent that subscribes to {rule.ingress} has a `key`, so their tasks run at once"
            self.add(line, what, f"Give {subscribers[0]} the `key` whose order it needs, or remove `order`")

    def _own_topics(self) -> dict[str, str]:
        prefix = self.declared.prefix
        names = [*(f"{prefix}.{name}" for name in OWN_TOPICS), *map(self.declared.tasks, self.agents)]
        return {name.replace(".", "_"): name for name in names}

    def _check_types(self, topics: dict[str, str], rule: TopicRule, direction: str, types: Iterable[str]) -> None:
        for type in types:
            if type in topics:
                place = f"topics.{rule.name}.{direction}"
                what = f"{place}: {type} is already {direction} of topic {topics[type]}"
                self.add(self.draft.line(f"{place}[{type}]", place), what, "A type has one topic: remove one of them")
            topics.setdefault(type, rule.name)

    # -------------------------------------------------------------------------------------------------------- types

    def check_consumed_types(self) -> None:
        """Check that every type that an agent consumes or an egress topic names can occur."""
        for name, spec in self.agents.items():
            missing = [type for type in spec.on if type not in self.occurring]
            for type in missing:
                line = self.draft.line(f"agents.{name}.on[{type}]", f"agents.{name}.on", f"agents.{name}")
                if self._report_misspelt(type, line, f"agents.{name}.on: unknown type {type}"):
                    continue
                what = f"agents.{name}.on: no agent emits {type}, and no topic has it as `ingress`"
                if spec.join:
                    what += f", so the join of {name} can never be met"
                elif len(missing) == len(spec.on):
                    what += f", so {name} is never triggered"
                remedy = f"Let an agent emit {type}, or declare a topic with `ingress: {type}`"
                self.add(line, what, self._hint(type, self.occurring) + remedy)
        for rule in self.declared.topics.values():
            for type in rule.egress:
                place = f"topics.{rule.name}.egress"
                line = self.draft.line(f"{place}[{type}]", place)
                if type in self.occurring or self._report_misspelt(type, line, f"{place}: unknown type {type}"):
                    continue
                hint = self._hint(type, self.occurring)
                self.add(line, f"{place}: no agent emits {type}", f"{hint}Let an agent emit it, or remove it")

    def check_emitted_types(self) -> None:
        """Check that every type that occurs is consumed or leaves the mesh."""
        used = {**self.subscribers, **self.egress_types}
        for name, spec in self.agents.items():
            for type in spec.emits:
                if type in used or self._is_meant(type):
                    continue
                line = self.draft.line(f"agents.{name}.emits[{type}]", f"agents.{name}.emits")
                hint = self._hint(type, used)
                remedy = f"{hint}Subscribe an agent to it, name it as `egress` of a topic, or remove it"
                what = f"agents.{name}.emits: no agent subscribes to {type}, and no topic has it as `egress`"
                self.add(line, what, remedy)
        for rule in self.declared.topics.values():
            if rule.ingress is None or rule.ingress in used or self._is_meant(rule.ingress):
                continue
            place = f"topics.{rule.name}.ingress"
            hint = self._hint(rule.ingress, used)
            what = f"{place}: no agent subscribes to {rule.ingress}"
            self.add(self.draft.line(place), what, f"{hint}Subscribe an agent to it")

    def _report_misspelt(self, type: str, line: int, what: str) -> bool:
        """Return whether `type` counts as a misspelling of one that occurs. Then that is the only problem."""
        if self._may_be_unread(type):
            return True
        guess = self.guess(type, self.occurring)
        if guess is None:
            return False
        self.meant.add(guess)
        self.add(
            line, what, f"Did you mean {guess}? Else let an agent emit {type}, or a topic bring it in as `ingress`"
        )
        return True

    def _is_meant(self, type: str) -> bool:
        return type in self.meant or self._may_be_unread(type)

    def _may_be_unread(self, type: str) -> bool:
        return bool(self.draft.unread) and self.guess(type, self.draft.unread) is not None

    def _hint(self, type: str, known: Iterable[str]) -> str:
        guess = self.guess(type, known, 0.7)
        return f"Did you mean {guess}? Else: " if guess is not None else ""

    # --------------------------------------------------------------------------------------------------- conditions

    def check_conditions(self) -> None:
        """Check that every path of a condition reads an event that its agent consumes."""
        for name, spec in self.agents.items():
            if spec.when is None or not spec.on:
                continue
            line = self.draft.line(f"agents.{name}.when", f"agents.{name}")
            for path in dict.fromkeys(spec.when.bind(spec.on).paths):
                if path.type is None:
                    self._unbound(spec, path, line)

    def _unbound(self, spec: AgentSpec, path: Path, line: int) -> None:
        place, subscribed = f"agents.{spec.name}.when", ", ".join(spec.on)
        field = f"write {spec.on[0]}.{path} if a field is meant"
        other = path.bind(self.known).type
        if other is not None:
            what = f"{place}: {path} names type {other}, to which {spec.name} does not subscribe (only to {subscribed})"
            self.add(line, what, f"Subscribe to {other} too, or {field}")
        elif (guess := self._guessed_type(path)) is not None:
            self.add(line, f"{place}: {path} names an unknown type", f"Did you mean {guess}? Else {field}")
        elif spec.join:
            what = f"{place}: {path} does not say which event is meant (the agent subscribes to {subscribed})"
            self.add(line, what, f"Write the type first, like {spec.on[0]}.{path}")

    def _guessed_type(self, path: Path) -> str | None:
        """Return the type of several words that the path begins with, apart from a typing error."""
        for count in range(len(path.segments), 1, -1):
            start = path.segments[:count]
            if all(isinstance(segment, str) for segment in start):
                guess = self.guess(".".join(map(str, start)), _with_segments(self.known, count))
                if guess is not None:
                    return guess
        return None

    def check_keys(self) -> None:
        """Check that `key` and `id` are fields of a payload of any type."""
        declared = [(f"agents.{name}.key", spec.key) for name, spec in self.agents.items()]
        for rule in self.declared.topics.values():
            declared += [(f"topics.{rule.name}.key", rule.key), (f"topics.{rule.name}.id", rule.id)]
        for place, text in declared:
            if text is None:
                continue
            path = parse_path(text).bind(type for type in self.known if "." in type)
            if path.type is not None:
                what = f"{place}: {text} begins with a type of event, but a key is a field of every payload"
                self.add(
                    self.draft.line(place), what, f"Write {Path(path.segments)}" if path.segments else "Name a field"
                )

    # ------------------------------------------------------------------------------------------------------ numbers

    def check_fallbacks(self) -> None:
        """Check that each fallback exists and is another agent."""
        for name, spec in self.agents.items():
            place = f"agents.{name}.fallback"
            for other in spec.fallback:
                line = self.draft.line(f"{place}[{other}]", place)
                if other == name:
                    self.add(line, f"{place}: {name} cannot be its own fallback", "Raise retry.attempts, or remove it")
                elif other not in self.agents:
                    hint = self._hint(other, self.agents)
                    self.add(line, f"{place}: no agent is called {other}", f"{hint}Declare it, or remove it")

    # -------------------------------------------------------------------------------------------------------- graph

    def check_starts(self) -> None:
        """Find agents that wait for one another, so that none of them can be the first."""
        # A type without an emitter is a problem of its own and counts as occurring here.
        occurring = set(self.ingress_types) | (self.subscribers.keys() - self.emitters.keys())
        firing: set[str] = set()
        changed = True
        while changed:
            changed = False
            for name, spec in self.agents.items():
                met = all if spec.join else any
                if name not in firing and (not spec.on or met(type in occurring for type in spec.on)):
                    firing.add(name)
                    occurring.update(spec.emits)
                    changed = True
        blocked = without(self.graph, firing)
        for group in cycles(blocked):
            path = shortest_cycle(without(blocked, set(blocked) - set(group)), group[0])
            line = self.draft.line(f"agents.{group[0]}.on", f"agents.{group[0]}")
            joins = [name for name in group if self.agents[name].join]
            if joins:
                missing = [type for type in self.agents[joins[0]].on if type not in occurring]
                what = (
                    f"agents.{joins[0]}.on: the join cannot be met, {missing[0]} occurs only after it ({_arrows(path)})"
                )
                line = self.draft.line(f"agents.{joins[0]}.on[{missing[0]}]", f"agents.{joins[0]}.on")
                remedy = f"Let another agent or an ingress topic bring {missing[0]}, or subscribe to it without `all`"
                self.add(line, what, remedy)
            else:
                what = f"agents.{group[0]}.on: {_arrows(path)} can never start: these agents wait only for one another"
                self.add(line, what, "Subscribe one of them to an ingress type, or to a type that another agent emits")

    def check_cycles(self) -> frozenset[str]:
        """Check that every cycle passes an agent with a cap of its own. Return the agents on cycles."""
        capped = [name for name, spec in self.agents.items() if spec.visits_max is not None]
        uncapped = without(self.graph, capped)
        for _ in range(CYCLE_ROUNDS_MAX):
            starts = [group[0] for group in cycles(uncapped)]
            for start in starts:
                line = self.draft.line(f"agents.{start}.on", f"agents.{start}")
                what = f"cycle without a cap: {_arrows(shortest_cycle(uncapped, start))}"
                remedy = f"Set how often a run may visit one of them, like `visits_max: 3` in agents.{start}"
                self.add(line, what, remedy)
            uncapped = without(uncapped, starts)
        return frozenset(name for group in cycles(self.graph) for name in group)

    def check_depth(self) -> None:
        """Check that the longest path through the mesh is allowed."""
        path, limit = longest_path(self.graph), self.declared.limits.depth_max
        if len(path) > limit:
            place = "mesh.limits.depth_max"
            line = self.draft.line(place, f"agents.{path[0]}")
            what = f"{place}: the longest path has {len(path)} agents, at most {limit} are allowed: {_arrows(path)}"
            self.add(line, what, f"Raise it to {len(path)} or more")


def _by_type(declared: Iterable[tuple[Iterable[str], str]]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for types, name in declared:
        for type in types:
            found.setdefault(type, []).append(name)
    return found


def _with_segments(types: Iterable[str], count: int) -> list[str]:
    return [type for type in types if type.count(".") == count - 1]


def _arrows(names: Iterable[str]) -> str:
    return " -> ".join(names)
