"""Compute the digest of a topology, which is pinned to every run. Files with the same meaning have equal digests."""

import json
from dataclasses import asdict, replace
from hashlib import sha256
from typing import Any

from mesh.core.topology.model import AgentSpec, TopicRule, Topology

_OWN_FORM = ("line", "when", "retry", "breaker", "ignores")
_NOT_DECIDED_BY = ("cache_ms", "faust")
"""Fields of agents that no decision depends on. Tuning them does not change the digest."""
_NOT_OF_TOPICS = ("line", "join", "ordered", "retention_ms")
"""Such fields of topics. `ordered` is added if it is true, because run ids depend on it."""


def digest_of(topology: Topology) -> str:
    """Compute the digest of the meaning of a topology. Comments, lines and irrelevant orders do not change it."""
    agents = {}
    for name, spec in topology.agents.items():
        content = {key: value for key, value in _fields_of(spec).items() if key not in (*_OWN_FORM, *_NOT_DECIDED_BY)}
        content["on"] = spec.on if spec.join else set(spec.on)
        content["emits"] = set(spec.emits)
        content["when"] = None if spec.when is None else [str(spec.when), spec.when.bound]
        if spec.ignores:  # left out otherwise, so that files without the word keep their digests
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
        # Task ids are derived from positions among the routes of a type, so this order matters.
        "rows": {type: [row.agent.name for row in rows] for type, rows in topology.rows.items()},
    }
    text = json.dumps(meaning, sort_keys=True, separators=(",", ":"), default=sorted)
    return sha256(text.encode()).hexdigest()[:16]


def matches_digest(topology: Topology, digest: str) -> bool:
    """Return whether a topology has this digest, as computed now or before `order` was part of it."""
    if digest_of(topology) == digest:
        return True
    unordered = {name: replace(rule, ordered=False) for name, rule in topology.topics.items()}
    return digest_of(replace(topology, topics=unordered)) == digest


def _of_topic(rule: TopicRule) -> dict[str, Any]:
    content = {key: value for key, value in asdict(rule).items() if key not in _NOT_OF_TOPICS}
    content["egress"] = set(rule.egress)
    if rule.ordered:  # left out otherwise, so that files without the word keep their digests
        content["ordered"] = True
    return content


def _fields_of(spec: AgentSpec) -> dict[str, Any]:
    return {name: getattr(spec, name) for name in spec.__dataclass_fields__}
