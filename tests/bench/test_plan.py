"""The plan of `make bench`: every part, within the time."""

from bench.peers import run
from bench.peers.__main__ import wanted
from bench.peers.hop import PEERS
from bench.peers.results import SKELETON, WHAT
from bench.plan import (
    BY_HAND,
    GROWTH_POINTS,
    MINUTES,
    PAGES_S,
    ROUNDS,
    SHORTEST,
    SPARE_S,
    Part,
    plan,
    share,
    without_broker,
)
from bench.plan import PEERS as PLANNED
from bench.workloads import NAMES, load

PARTS = plan("/kept", "kafka://broker")
LIMIT_S = MINUTES * 60 - SPARE_S


def words(part: Part) -> str:
    return " ".join(part.words())


def test_every_workload_is_there_on_both_logs_if_a_log_takes_part() -> None:
    said = [words(part) for part in PARTS]
    for name in NAMES:
        embedded = any(one.startswith(f"mesh bench {name} --to /kept --for ") for one in said)
        assert embedded == (name not in BY_HAND), name
        # The board is on no log, and more processes on Kafka are what growth measures.
        on_kafka = load(name).on_log and name not in ("board", "scale", *BY_HAND)
        found = any(one.startswith(f"mesh bench {name} --to /kept --log kafka://broker ") for one in said)
        assert found == on_kafka, name
    assert sum("bench.growth" in one for one in said) == 2
    for name in WHAT:
        assert any(f"bench.peers --workload {name} " in one for one in said), name


def test_the_plan_fits_into_its_time_with_all_that_was_said_to_be_measured() -> None:
    assert share(PARTS, LIMIT_S) == 1
    assert sum(part.takes_s() for part in PARTS) + PAGES_S < LIMIT_S


def test_ten_thousand_tasks_and_a_million_runs_are_measured_however_late_it_is() -> None:
    late = {part.what: " ".join(part.words(SHORTEST)) for part in PARTS}
    assert late["io embedded"].endswith("--for 30s")
    assert late["state embedded"].endswith("--for 30s")
    assert late["run1 embedded"].endswith("--for 2s")


def test_what_is_left_measures_less_when_it_is_late_but_never_nothing() -> None:
    assert SHORTEST < share(PARTS, LIMIT_S * 0.92) < 1
    assert share(PARTS, 0.0) == SHORTEST
    assert share([Part("pages", "bench.report_page", beside_s=5)], 0.0) == 1
    fits = share(PARTS, LIMIT_S * 0.92)
    assert sum(part.takes_s(fits) for part in PARTS) + PAGES_S <= LIMIT_S * 0.92 + 1


def test_without_a_broker_the_peers_that_need_none_are_beside_the_embedded_mesh() -> None:
    left = without_broker(PARTS)
    assert not any("kafka" in words(part) for part in left)
    assert [part.what for part in left if part.module == "bench.peers"] == ["peers: run1", "peers: run3"]
    assert [part for part in PARTS if not part.needs] == [part for part in left if not part.needs]


def test_peers_can_be_left_away() -> None:
    assert not any("peers" in words(part) for part in plan("/kept", "", peers=False))


def test_the_plan_counts_sides_points_and_rounds_as_there_are() -> None:
    assert PLANNED["hop"][2] == 1 + len(PEERS)
    names = [*run.OURS.values(), *(peer.name for peer in run.PEERS)]
    for workload in ("run1", "run3"):
        for parts, ours in ((PARTS, run.OURS["kafka"]), (without_broker(PARTS), run.OURS["sqlite"])):
            (words,) = (part.arguments for part in parts if part.what == f"peers: {workload}")
            bare = [SKELETON] if workload == "run1" and parts is PARTS else []
            sides = wanted([*names, *bare], words[words.index("--only") + 1])
            left_out = workload == "run1" and not bare
            assert len(sides) + left_out == PLANNED[workload][2]
            assert bare == [name for name in sides if name == SKELETON]
            assert sides[0] == ours
    assert ROUNDS >= 5
    assert GROWTH_POINTS == 6
