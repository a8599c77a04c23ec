"""Positions of each agent's keys and values in a YAML document, for edits that keep everything else.

`yaml_nodes.read` must have accepted the text first, because it limits size and depth.
"""

from collections.abc import Mapping
from typing import NamedTuple

import yaml


class Value(NamedTuple):
    """A value in the text. Positions are indexes of characters; `end` is exclusive."""

    start: int
    end: int
    is_list: bool
    flow: bool
    """The value is written in brackets or braces."""
    items: tuple[int, ...]
    """The ends of the items of a list."""
    shared: bool
    """The value has an anchor or an alias, or is neither a scalar nor a list of scalars."""
    empty: bool
    """The value is missing."""


class Key(NamedTuple):
    """A key of an agent's mapping with its value."""

    start: int
    end: int
    value: Value
    all: Value | None
    """The value of `all`, if the value of this key is a mapping with only `all`."""


class AgentSpan(NamedTuple):
    """The mapping of one agent. `flow`: it is written in braces."""

    flow: bool
    keys: Mapping[str, Key]


def agent_spans(text: str) -> dict[str, AgentSpan]:
    """Return agent → positions of its keys. Agents whose mapping has an anchor or is an alias are left out."""
    agents = _entries(yaml.compose(text, Loader=yaml.SafeLoader)).get("agents")
    found: dict[str, AgentSpan] = {}
    for name, (name_key, node) in _entries(agents and agents[1]).items():
        if isinstance(node, yaml.MappingNode) and not _is_shared(text, node, name_key.end_mark.index):
            keys = {word: _key(text, key, value) for word, (key, value) in _entries(node).items()}
            found[name] = AgentSpan(bool(node.flow_style), keys)
    return found


def _entries(node: yaml.Node | None) -> dict[str, tuple[yaml.Node, yaml.Node]]:
    if not isinstance(node, yaml.MappingNode):
        return {}
    return {key.value: (key, value) for key, value in reversed(node.value) if isinstance(key, yaml.ScalarNode)}


def _is_shared(text: str, node: yaml.Node, after: int) -> bool:
    """Return whether a node has an anchor or is an alias. An alias has the marks of its anchor, which precedes it."""
    return node.start_mark.index < after or text[node.start_mark.index : node.start_mark.index + 1] == "&"


def _key(text: str, key: yaml.Node, node: yaml.Node) -> Key:
    inner = _entries(node)
    needed = inner["all"] if list(inner) == ["all"] and not _is_shared(text, node, key.end_mark.index) else None
    return Key(
        key.start_mark.index,
        key.end_mark.index,
        _value(text, key, node),
        None if needed is None else _value(text, *needed),
    )


def _value(text: str, key: yaml.Node, node: yaml.Node) -> Value:
    after, start, end = key.end_mark.index, node.start_mark.index, _end(text, node)
    if start < after:
        return Value(after, after, False, False, (), True, False)
    children = node.value if isinstance(node, yaml.SequenceNode) else []
    simple = all(isinstance(child, yaml.ScalarNode) and not _is_shared(text, child, start) for child in children)
    simple = simple and isinstance(node, yaml.SequenceNode | yaml.ScalarNode) and not _is_shared(text, node, after)
    return Value(
        start,
        end,
        is_list=isinstance(node, yaml.SequenceNode),
        flow=isinstance(node, yaml.CollectionNode) and bool(node.flow_style),
        items=tuple(child.end_mark.index for child in children),
        shared=not simple,
        empty=isinstance(node, yaml.ScalarNode) and start == end,
    )


def _end(text: str, node: yaml.Node) -> int:
    """Return the end of a node. The end mark of a block collection is the start of the next node, so it is not used."""
    if isinstance(node, yaml.CollectionNode) and not node.flow_style and node.value:
        last = node.value[-1]
        return _end(text, last[1] if isinstance(last, tuple) else last)
    return max(node.start_mark.index, len(text[: node.end_mark.index].rstrip()))
