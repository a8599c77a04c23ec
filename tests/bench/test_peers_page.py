"""The table of the peers."""

from typing import Any

from bench.peers_page import chapter, measured
from tests.bench.canned import body, figure

KILLED: dict[str, Any] = {"messages": 300, "kills": 2, "lost": 18, "doubled": 3, "safe": False}


def peer(subject: str, workload: str, *figures: Any, **settings: Any) -> dict[str, Any]:
    return body(workload, *figures, subject=subject, command="python -m bench.peers", settings=settings)


OURS = peer("mesh-worker", "hop", figure("hops_per_s", 50_000), kill_9={**KILLED, "lost": 0, "safe": True})
SLOW = peer("faust", "hop", figure("hops_per_s", 1_000), figure("cpu_us_per_hop", 900.4), kill_9=KILLED)
QUICK = peer(
    "raw-aiokafka",
    "hop",
    figure("hops_per_s", 60_000),
    figure("mesh_is_times", 0.8333, at={"log": "kafka"}, samples=[0.8, 0.8333, 0.9]),
)
RESTATE = peer(
    "restate",
    "run1",
    figure("runs_per_s", 1_000),
    *(figure("mesh_is_times", n, at={"log": log}, samples=[n]) for n, log in ((15, "kafka"), (10, "sqlite"))),
)
ENDED = peer("dbos", "run1", failed="it ended | so", kill_9={"failed": "too"})
BODIES = [RESTATE, ENDED, SLOW, QUICK, body("run1"), OURS]


def row(subject: str) -> str:
    (found,) = (line for line in chapter(BODIES).splitlines() if f"| {subject} |" in line)
    return found


def test_ours_comes_first_then_the_peers_and_the_quickest_of_them() -> None:
    assert [one["subject"] for one in measured(BODIES)] == ["mesh-worker", "raw-aiokafka", "faust", "restate", "dbos"]


def test_a_peer_stands_there_with_speed_cost_ratio_and_what_a_kill_did() -> None:
    assert row("raw-aiokafka").startswith(
        "| hop | raw-aiokafka | 60,000 | – | 0.833 x (0.8 … 0.9) on Kafka | not tested"
    )
    assert "| 1,000 | 900 | – | **not safe**: 18 of 300 lost, 3 twice | `python -m bench.peers`, commit" in row("faust")
    assert "safe: 0 of 300 lost" in row("mesh-worker")
    assert "15 x (15 … 15) on Kafka<br>10 x (10 … 10) embedded" in row("restate")


def test_a_peer_that_could_not_be_measured_says_why() -> None:
    assert r"not measured: it ended \| so" in row("dbos")
    assert "not tested: too" in row("dbos")


def test_the_table_is_well_formed() -> None:
    rows = [line.replace(r"\|", "") for line in chapter(BODIES).splitlines() if line.startswith("|")]
    assert {line.count("|") for line in rows} == {8}
