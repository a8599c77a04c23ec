"""The digest of a topology, which every run pins: equal for files that mean the same."""

import json
from dataclasses import asdict, replace
from hashlib import sha256
from typing import Any

from mesh.core.topology.model import AgentSpec, TopicRule, Topology

_OWN_FORM = ("line", "when", "retry", "breaker", "ignores")
_NOT_DECIDED_BY = ("cache_ms",)
"""What no decision depends on: it may be tuned without another digest."""
_NOT_OF_TOPICS = ("line", "join", "ordered", "retention_ms")
"""The same of a topic. `ordered` is added where it is true: run ids follow from it."""


def digest_of(topology: Topology) -> str:
    """The digest of what a topology means: comments, lines, and orders that do not matter leave it the same."""
    agents = {}
    for name, spec in topology.agents.items():
        content = {key: value for key, value in _fields_of(spec).items() if key not in (*_OWN_FORM, *_NOT_DECIDED_BY)}
        content["on"] = spec.on if spec.join else set(spec.on)
        content["emits"] = set(spec.emits)
        content["when"] = None if spec.when is None else [str(spec.when), spec.when.bound]
        if spec.ignores:  # left out otherwise, so that digests of files without the word are what they were
            content["ignores"] = True
        content["retry"] = asdict(spec.retry)
        content["breaker"] = None if spec.breaker is None else asdict(spec.breaker)
        agents[name] = content
    meaning = {
        "name": topology.name,
        "prefix": topology.prefix,
        "inbox_partitions": topology.inbox_partitions,
        "chaos": topology.chaos,
        "limits": asdict(topology.limits),
        "agents": agents,
        "topics": {name: _of_topic(rule) for name, rule in topology.topics.items()},
        # Ids of tasks are made of positions among the rows of a type, so this order does matter.
        "rows": {type: [row.agent.name for row in rows] for type, rows in topology.rows.items()},
    }
    text = json.dumps(meaning, sort_keys=True, separators=(",", ":"), default=sorted)
    return sha256(text.encode()).hexdigest()[:16]


def matches_digest(topology: Topology, digest: str) -> bool:
    """Whether a topology has this digest, as counted now or before `order` was part of it."""
    if digest_of(topology) == digest:
        return True
    unordered = {name: replace(rule, ordered=False) for name, rule in topology.topics.items()}
    return digest_of(replace(topology, topics=unordered)) == digest


def _of_topic(rule: TopicRule) -> dict[str, Any]:
    content = {key: value for key, value in asdict(rule).items() if key not in _NOT_OF_TOPICS}
    content["egress"] = set(rule.egress)
    if rule.ordered:  # left out otherwise, so that digests of files without the word are what they were
        content["ordered"] = True
    return content


def _fields_of(spec: AgentSpec) -> dict[str, Any]:
    return {name: getattr(spec, name) for name in spec.__dataclass_fields__}
