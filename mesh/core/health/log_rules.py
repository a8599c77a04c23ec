"""Judges the topics of a log: whether they exist as declared, and whether their settings lose records."""

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from mesh.core.health.finding import ERROR, NOTE, OK, WARNING, Finding
from mesh.core.topology.model import Topology
from mesh.core.topology.partition_counts import find_mismatches, partitions_declared

MIN_INSYNC: Final = "min.insync.replicas"
UNCLEAN: Final = "unclean.leader.election.enable"
RETENTION_MS: Final = "retention.ms"
RETENTION_BYTES: Final = "retention.bytes"
CLEANUP: Final = "cleanup.policy"
STAMP: Final = "message.timestamp.type"
SETTINGS: Final = (MIN_INSYNC, UNCLEAN, RETENTION_MS, RETENTION_BYTES, CLEANUP, STAMP)
"""Settings of topics that are judged."""
SAFE_REPLICAS: Final = 3


class TopicFacts(NamedTuple):
    """A topic as its brokers describe it. Settings that may not be read are missing."""

    replicas: int
    settings: Mapping[str, str]


class ClusterFacts(NamedTuple):
    """Brokers, and topics by name."""

    brokers: int
    topics: Mapping[str, TopicFacts]


def judge_topics(topology: Topology, found: Mapping[str, int], *, create: str) -> list[Finding]:
    """Compare topics of a log (name → partitions) with those of a topology. `create`: the command that makes them."""
    declared = partitions_declared(topology)
    findings = [
        Finding(ERROR, name, "the topic is missing", f"a topic with {number} partitions", "none", create)
        for name, number in declared.items()
        if name not in found
    ]
    for other in find_mismatches(topology, found):
        expected, got = f"{other.declared} partitions", f"{other.found}"
        findings.append(
            Finding(ERROR, other.topic, "the topic has another number of partitions", expected, got, other.remedy)
        )
    return findings or [Finding(OK, "topics", f"all {len(declared)} topics are there as declared")]


def judge_settings(
    topology: Topology, wanted: Mapping[str, Mapping[str, str]], cluster: ClusterFacts
) -> Sequence[Finding]:
    """Judge replication, retention and the other settings that may lose records. `wanted`: settings by topic."""
    findings: list[Finding] = []
    alone = [name for name, facts in cluster.topics.items() if facts.replicas == 1]
    if alone:
        what = f"{_named(alone)} on one broker only: its disk is the only copy"
        level = WARNING if cluster.brokers > 1 else NOTE
        fix = "raise the replication factor with kafka-reassign-partitions" if level == WARNING else "add brokers"
        findings.append(Finding(level, "replication", what, f"{SAFE_REPLICAS} replicas", "1", fix))
    for name, facts in cluster.topics.items():
        findings += _judge_topic(topology, name, wanted.get(name, {}), facts)
    return findings or [Finding(OK, "settings", f"no setting of {len(cluster.topics)} topics loses records")]


def _judge_topic(topology: Topology, name: str, wanted: Mapping[str, str], facts: TopicFacts) -> list[Finding]:
    found: list[Finding] = []

    def add(level: str, what: str, setting: str, expected: str, got: str) -> None:
        fix = f"kafka-configs --alter --topic {name} --add-config {setting}={expected.split()[-1]}"
        found.append(Finding(level, name, what, f"{setting} {expected}", got, fix))

    settings = facts.settings
    if settings.get(UNCLEAN) == "true":
        add(ERROR, "acknowledged records are lost when a replica that is behind is elected", UNCLEAN, "false", "true")
    insync = settings.get(MIN_INSYNC, "")
    if insync.isdecimal() and int(insync) > facts.replicas:
        add(
            ERROR,
            "no record can be acknowledged: it has fewer replicas",
            MIN_INSYNC,
            f"at most {facts.replicas}",
            insync,
        )
    elif insync == "1" and facts.replicas > 1:
        add(WARNING, "a record is acknowledged by one replica, and lost with it", MIN_INSYNC, "2", insync)
    if settings.get(STAMP, wanted.get(STAMP)) != wanted.get(STAMP):
        add(ERROR, "records bear the times of their producers", STAMP, wanted.get(STAMP, ""), settings[STAMP])
    policy, declared = settings.get(CLEANUP), wanted.get(CLEANUP, "delete")
    if policy is not None and set(policy.split(",")) != set(declared.split(",")):
        add(ERROR, "records are removed in another way than declared", CLEANUP, declared, policy)
    if settings.get(RETENTION_BYTES, "-1") != "-1" and "delete" in declared:
        add(
            WARNING, "records are removed by size, whatever their age", RETENTION_BYTES, "-1", settings[RETENTION_BYTES]
        )
    found += _judge_retention(topology, name, wanted, settings)
    return found


def _judge_retention(
    topology: Topology, name: str, wanted: Mapping[str, str], settings: Mapping[str, str]
) -> list[Finding]:
    """Retention must outlast a run where runs need the records, and should be the declared one."""
    declared, kept = wanted.get(RETENTION_MS), settings.get(RETENTION_MS)
    if declared is None or kept is None or kept == declared or kept == "-1":
        return []
    deadline_ms = topology.limits.deadline_ms
    needed = name == topology.inbox or name in map(topology.tasks, topology.agents)
    if not kept.lstrip("-").isdecimal():
        return []
    fix = f"kafka-configs --alter --topic {name} --add-config {RETENTION_MS}={declared}"
    if needed and int(kept) < deadline_ms:
        what = "records are removed before the runs that need them end"
        expected = f"{RETENTION_MS} of {deadline_ms} or more, the deadline of runs"
        return [Finding(ERROR, name, what, expected, kept, fix)]
    what = "records are kept for another time than declared"
    return [Finding(WARNING, name, what, f"{RETENTION_MS} {declared}", kept, fix)]


def _named(names: Sequence[str]) -> str:
    return f"{names[0]} is" if len(names) == 1 else f"{len(names)} topics are"
