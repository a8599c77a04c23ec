"""Topics and their settings: each setting that loses records is found, and a safe log has no finding but ok."""

import pytest

from mesh.core.health.finding import ERROR, NOTE, OK, WARNING
from mesh.core.health.log_rules import ClusterFacts, TopicFacts, judge_settings, judge_topics
from mesh.core.topology.loader import load
from mesh.core.topology.partition_counts import partitions_declared

TOPOLOGY = load("""
mesh: {name: t, prefix: p, inbox: {partitions: 2}, limits: {deadline: 60s}}
topics: {asks: {ingress: ask, partitions: 1}, answers: {egress: answer, partitions: 1}}
agents: {echo: {run: "x:y", on: ask, emits: answer}}
""")
DAY = "86400000"
SAFE = {
    "min.insync.replicas": "2",
    "unclean.leader.election.enable": "false",
    "retention.ms": DAY,
    "retention.bytes": "-1",
    "cleanup.policy": "delete",
    "message.timestamp.type": "LogAppendTime",
}
WANTED = {name: {"retention.ms": DAY, "message.timestamp.type": "LogAppendTime"} for name in ("p.inbox", "answers")}


def judged(name: str, replicas: int = 3, brokers: int = 3, **changed: str) -> list[tuple[str, str, str]]:
    settings = SAFE | {key.replace("_", "."): value for key, value in changed.items()}
    facts = ClusterFacts(brokers, {name: TopicFacts(replicas, settings)})
    return [(one.level, one.where, one.got) for one in judge_settings(TOPOLOGY, WANTED, facts)]


def test_safe_settings_are_ok() -> None:
    assert judged("p.inbox") == [(OK, "settings", "")]


@pytest.mark.parametrize(
    ("setting", "value", "level"),
    [
        ("unclean_leader_election_enable", "true", ERROR),
        ("min_insync_replicas", "4", ERROR),
        ("min_insync_replicas", "1", WARNING),
        ("message_timestamp_type", "CreateTime", ERROR),
        ("cleanup_policy", "compact", ERROR),
        ("retention_bytes", "1000", WARNING),
        ("retention_ms", "59999", ERROR),
        ("retention_ms", "60000", WARNING),
    ],
)
def test_each_setting_that_loses_records_is_found(setting: str, value: str, level: str) -> None:
    assert judged("p.inbox", 3, 3, **{setting: value}) == [(level, "p.inbox", value)]


def test_a_fix_names_topic_and_setting() -> None:
    facts = ClusterFacts(3, {"p.inbox": TopicFacts(3, SAFE | {"unclean.leader.election.enable": "true"})})
    (found,) = judge_settings(TOPOLOGY, WANTED, facts)
    assert found.next == "kafka-configs --alter --topic p.inbox --add-config unclean.leader.election.enable=false"


def test_short_retention_is_graver_where_runs_need_the_records() -> None:
    assert judged("answers", retention_ms="1") == [(WARNING, "answers", "1")]
    assert judged("p.inbox", retention_ms="-1") == [(OK, "settings", "")]


def test_one_copy_is_worse_where_there_are_more_brokers() -> None:
    assert judged("p.inbox", 1, 1, min_insync_replicas="1") == [(NOTE, "replication", "1")]
    assert judged("p.inbox", 1, 3, min_insync_replicas="1") == [(WARNING, "replication", "1")]


def test_settings_that_may_not_be_read_are_no_finding() -> None:
    facts = ClusterFacts(3, {"p.inbox": TopicFacts(3, {})})
    assert [one.level for one in judge_settings(TOPOLOGY, WANTED, facts)] == [OK]


def test_topics_are_compared_with_the_declared_ones() -> None:
    there = partitions_declared(TOPOLOGY)
    assert [one.level for one in judge_topics(TOPOLOGY, there, create="mesh up")] == [OK]
    del there["asks"]
    there["p.inbox"] = 5
    found = judge_topics(TOPOLOGY, there, create="mesh topics create")
    assert [(one.level, one.where, one.expected, one.got) for one in found] == [
        (ERROR, "asks", "a topic with 1 partitions", "none"),
        (ERROR, "p.inbox", "2 partitions", "5"),
    ]
    assert found[0].next == "mesh topics create"
