"""Compare the numbers of partitions that a topology declares with those of the topics on the log. Pure.

The number of partitions of a topic is frozen. The partitions of runs, tasks and keys follow from it, so a change would
separate records that belong together.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from mesh.core.errors import Problem
from mesh.core.topology.model import OWN_TOPICS, Topology

AS_THE_INBOX = ("inbox", "outcomes", "dead", "checkpoints")
"""Own topics with as many partitions as the inbox, besides the topics of tasks. All others have one partition."""


class PartitionMismatch(NamedTuple):
    """A topic on the log whose number of partitions is not the one that topics.yaml declares."""

    topic: str
    found: int
    declared: int
    line: int
    """The line of topics.yaml that declares the topic; 1 for the inbox and other topics of the mesh itself."""
    remedy: str

    @property
    def text(self) -> str:
        """The mismatch as a sentence without a full stop."""
        noun = "partition" if self.found == 1 else "partitions"
        return f"{self.topic} has {self.found} {noun}, {self.declared} declared"


def partitions_declared(topology: Topology) -> dict[str, int]:
    """Return the number of partitions of every topic that the mesh needs, by name."""
    inbox = topology.inbox_partitions
    own = {f"{topology.prefix}.{name}": inbox if name in AS_THE_INBOX else 1 for name in OWN_TOPICS}
    tasks = dict.fromkeys(map(topology.tasks, topology.agents), inbox)
    return {**own, **tasks, **{rule.name: rule.partitions for rule in topology.topics.values()}}


def find_mismatches(topology: Topology, found: Mapping[str, int]) -> list[PartitionMismatch]:
    """Return the topics on the log (name → number of partitions) whose number is not the declared one."""
    return [
        PartitionMismatch(name, found[name], declared, _line(topology, name), _remedy(topology, name, found))
        for name, declared in partitions_declared(topology).items()
        if found.get(name, declared) != declared
    ]


def remedies_for(topics: Iterable[PartitionMismatch]) -> list[str]:
    """Return the remedies for mismatches, each once."""
    return list(dict.fromkeys(topic.remedy for topic in topics))


def problems_of(topics: Iterable[PartitionMismatch]) -> list[Problem]:
    """Return one problem of topics.yaml for each remedy."""
    found: dict[str, list[PartitionMismatch]] = {}
    for topic in topics:
        found.setdefault(topic.remedy, []).append(topic)
    return [Problem(same[0].line, "; ".join(t.text for t in same), remedy) for remedy, same in found.items()]


def _line(topology: Topology, name: str) -> int:
    return topology.topics[name].line if name in topology.topics else 1


def _remedy(topology: Topology, name: str, found: Mapping[str, int]) -> str:
    number = found[name]
    if name in topology.topics:
        place = f"{topology.path}:{_line(topology, name)}"
        return f"Write `partitions: {number}` for topic {name} ({place}), or declare a topic of another name instead"
    if number == found.get(topology.inbox) != topology.inbox_partitions:
        return f"Write `inbox: {{partitions: {number}}}` below `mesh:`, or start again under a new `prefix`"
    return f"Remove topic {name} if it holds nothing that is needed, and run `mesh topics create`"
