"""`mesh check --fix`: write `on` and `emits` of topics.yaml from the signatures of the agents' functions.

Types are only added. Comments, order and layout of the file stay. Keys that a signature does not determine are
reported and not changed.
"""

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from mesh.core.task.agent import Agent
from mesh.core.topology.yaml_nodes import Entries, Items, Node, Scalar, read
from mesh.core.topology.yaml_spans import AgentSpan, Value, agent_spans

ON: Final = "on"
EMITS: Final = "emits"
_WORDS_OF_YAML: Final = frozenset({"null", "true", "false", "yes", "no", "on", "off", "y", "n"})


class Change(NamedTuple):
    """A key that was written. `before` is empty for a new key; `line` is that of the new text."""

    line: int
    agent: str
    key: str
    before: str
    after: str


class Left(NamedTuple):
    """A key that the signature does not determine, or that cannot be edited in its place."""

    line: int
    agent: str
    key: str
    why: str


class Filled(NamedTuple):
    """The new text, the keys that were written, and the keys that were left."""

    text: str
    changes: Sequence[Change]
    left: Sequence[Left]


class _Wanted(NamedTuple):
    """The types that a key should list. `join`: as `{all: [a, b]}`."""

    types: list[str]
    join: bool = False

    def __str__(self) -> str:
        names = [_quote(name) for name in self.types]
        plain = names[0] if len(names) == 1 else f"[{', '.join(names)}]"
        return f"{{all: [{', '.join(names)}]}}" if self.join else plain


class _Edit(NamedTuple):
    """Replace the characters from `start` to `end`."""

    start: int
    end: int
    text: str


def runs_of(text: str) -> dict[str, tuple[str, int]]:
    """Return agent → its `run` and the line of the agent, where `run` can be read. Other keys may be missing."""
    runs = ((name, node.entries.get("run"), line) for name, (node, line) in _declared_agents(text).items())
    return {name: (run.text, line) for name, run, line in runs if isinstance(run, Scalar)}


def fill(text: str, agents: Mapping[str, Agent]) -> Filled:
    """Add to topics.yaml the types in the signatures of these functions. A second call changes nothing.

    `text`: the file, with `\\n` at the end of lines. `agents`: the functions that could be imported, by agent.
    """
    declared = _declared_agents(text)
    fallbacks = {name for node, _ in declared.values() for name in _names_in(node.entries.get("fallback"))}
    spans = agent_spans(text) if declared else {}
    edits: list[tuple[_Edit, Change]] = []
    left: list[Left] = []
    for name, (node, line) in declared.items():
        if name not in agents:
            continue
        for key in (ON, EMITS):
            if key == ON and name in fallbacks and key not in node.entries:
                continue  # it is called for other agents, so it may subscribe to nothing
            have = _names_in(node.entries.get(key))
            wanted = (_inputs if key == ON else _outputs)(agents[name], have, key in node.entries)
            if isinstance(wanted, _Wanted):
                edit = _edit(text, spans.get(name), key, wanted, have)
                if isinstance(edit, _Edit):
                    before = str(_Wanted(have, _is_join(node.entries.get(key)))) if have else ""
                    edits.append((edit, Change(0, name, key, before, str(wanted))))
                    continue
                wanted = f"{edit}; write `{key}: {wanted}`"
            if wanted:
                left.append(Left(line, name, key, wanted))
    return _apply(text, edits, left)


def _inputs(agent: Agent, have: list[str], written: bool) -> _Wanted | str:
    """Return the types for `on`, or why the signature does not determine them, or "" if there is nothing to add."""
    types, required = list(agent.consumes), [p for p in agent.parameters if p.required]
    if not types or any("" in parameter.adapters for parameter in agent.parameters):
        return "" if written else "its parameters name no event type"
    missing = [p for p in required if not set(p.types) & set(have)]
    if written and (not missing or set(have) - set(types)):
        return ""  # it agrees, or `mesh check` names the type that the function does not take
    if len(agent.parameters) == 1:
        return _Wanted(types)
    if len(required) == len(agent.parameters) == len(types):
        return _Wanted(types, join=True)
    combinations = f"its signature allows several combinations of {', '.join(types)}"
    return f"{combinations}; write `[a, b]` for any, `{{all: [a, b]}}` for all"


def _outputs(agent: Agent, have: list[str], written: bool) -> _Wanted | str:
    """Return the types for `emits`, or why the signature does not determine them, or "" if there is nothing to add."""
    missing = [type for type in agent.results.types if type and type not in have]
    if missing:
        return _Wanted([*have, *missing])
    return "its return annotation names no event type" if agent.emits is None and not written else ""


# ---------------------------------------------------------------------------------------------------------- editing


def _edit(text: str, agent: AgentSpan | None, key: str, wanted: _Wanted, have: list[str]) -> _Edit | str:
    """Return the edit that writes a key, or why it cannot be edited in place."""
    if agent is None:
        return "the agent stands behind an alias or an anchor"
    found = agent.keys.get(key)
    if found is None:
        return _insert_key(text, agent, key, wanted)
    value = found.value
    if value.empty:
        colon = text.index(":", found.end) + 1
        return _Edit(colon, colon, f" {wanted}")
    new = [name for name in wanted.types if name not in have]
    if wanted.join and found.all is not None:
        return _add_items(text, found.all, new, have)
    if value.shared:
        return "its value has an alias or an anchor"
    if wanted.join:
        commented = "#" in text[value.start : value.end]
        return "its value holds a comment" if commented else _Edit(value.start, value.end, str(wanted))
    return _add_items(text, value, new, have)


def _add_items(text: str, value: Value, new: list[str], have: list[str]) -> _Edit | str:
    if value.shared:
        return "its list has an alias or an anchor"
    if not value.is_list or not value.items:
        return _Edit(value.start, value.end, str(_Wanted([*have, *new])))
    end = value.items[-1]
    if value.flow:
        return _Edit(end, end, "".join(f", {_quote(name)}" for name in new))
    line_end = _line_end(text, end)
    return _Edit(line_end, line_end, "".join(f"\n{_indent(text, end)}- {_quote(name)}" for name in new))


def _insert_key(text: str, agent: AgentSpan, key: str, wanted: _Wanted) -> _Edit | str:
    """Write a new key behind `run`, or `emits` behind `on`."""
    before = agent.keys.get(ON if key == EMITS else "run", agent.keys.get("run"))
    if before is None:
        return "it has no `run`"
    if agent.flow:
        if before.value.shared and not before.all:
            return "the value before it has an alias or an anchor"
        return _Edit(before.value.end, before.value.end, f", {key}: {wanted}")
    line_end = _line_end(text, before.value.end)
    return _Edit(line_end, line_end, f"\n{_indent(text, before.start)}{key}: {wanted}")


def _line_end(text: str, position: int) -> int:
    end = text.find("\n", position)
    return len(text) if end < 0 else end


def _indent(text: str, position: int) -> str:
    line = text[text.rfind("\n", 0, position) + 1 :]
    return line[: len(line) - len(line.lstrip(" "))]


def _apply(text: str, edits: list[tuple[_Edit, Change]], left: list[Left]) -> Filled:
    parts: list[str] = []
    changes: list[Change] = []
    done = line = 0
    for edit, change in sorted(edits, key=lambda each: each[0].start):  # a stable sort: `on` stays before `emits`
        parts += [text[done : edit.start], edit.text]
        line += parts[-2].count("\n") + edit.text.count("\n")
        changes.append(change._replace(line=line + 1))
        done = edit.end
    return Filled("".join([*parts, text[done:]]), changes, sorted(left))


# ---------------------------------------------------------------------------------------------------------- reading


def _declared_agents(text: str) -> dict[str, tuple[Entries, int]]:
    """Agent → its mapping and its line. Empty where the text is not YAML."""
    root, _ = read(text)
    agents = root.entries.get("agents") if isinstance(root, Entries) else None
    if not isinstance(agents, Entries):
        return {}
    lines = agents.key_lines
    return {name: (node, lines[name]) for name, node in agents.entries.items() if isinstance(node, Entries)}


def _names_in(node: Node | None) -> list[str]:
    """The names in a value: one, a list, or the list below `all`."""
    if isinstance(node, Entries):
        return _names_in(node.entries.get("all"))
    nodes = node.items if isinstance(node, Items) else [] if node is None else [node]
    return list(dict.fromkeys(item.text for item in nodes if isinstance(item, Scalar) and not item.is_null))


def _is_join(node: Node | None) -> bool:
    return isinstance(node, Entries)


def _quote(name: str) -> str:
    """A type as YAML: in quotes where it could be read as something else than a word."""
    return name if name[0].isalpha() and name.lower() not in _WORDS_OF_YAML else f'"{name}"'
