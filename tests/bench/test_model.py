"""The capacity model: each station by numbers that can be checked by hand."""

import pytest

from bench.mesh_processes import ROOT
from bench.model import (
    COORDINATOR_REQUESTS_PER_S,
    MEMBER_REQUESTS_PER_S,
    Costs,
    Layout,
    StateCosts,
    burst_runs_per_s,
    busiest,
    group_size,
    limits,
    state_size,
    suggested,
)
from mesh.adapters.kafka.member import HEARTBEAT_MS
from mesh.app.wiring import load_topology, topic_specs
from mesh.services.worker import partitions

TOPOLOGY = load_topology(str(ROOT / "topics.yaml"))
COSTS = Costs(orchestrator_us=100, worker_us=50, client_us=30, broker_us=20)


def rate(station: str, layout: Layout, costs: Costs = COSTS) -> float:
    (found,) = [limit for limit in limits(costs, layout) if limit.station == station]
    return found.runs_per_s


def test_each_station_does_what_its_time_allows() -> None:
    one = Layout(cores=2, partitions=4)
    assert rate("cores", one) == 2e6 / 200
    assert rate("orchestrators", one) == 10_000
    assert rate("workers", one) == 20_000
    assert rate("lanes", one._replace(lanes=16, wait_ms=50)) == 320
    assert rate("lanes", one._replace(lanes=16, wait_ms=50, workers=4)) == 1_280
    assert rate("one key", one._replace(wait_ms=99.95, keys=1)) == pytest.approx(10)
    logged = COSTS._replace(records=5, log_records_per_s=100_000)
    assert rate("log", one, logged) == 20_000
    assert rate("log", one._replace(machines=3, replication=3), logged) == 20_000
    members = COORDINATOR_REQUESTS_PER_S / MEMBER_REQUESTS_PER_S
    assert rate("coordinator", one._replace(brokered=True)) == pytest.approx(members * 20_000)


def test_the_slowest_station_comes_first_and_says_what_to_turn() -> None:
    slowest, *others = limits(COSTS, Layout(cores=64, partitions=4))
    assert slowest.station == "orchestrators"
    assert slowest.change.startswith("2 orchestrators instead of 1")
    assert all(limit.runs_per_s >= slowest.runs_per_s for limit in others)
    frozen = limits(COSTS, Layout(cores=64, partitions=4, orchestrators=4, workers=4))[0]
    assert "a new mesh with more partitions" in frozen.change


def test_a_process_gets_whole_partitions_only() -> None:
    assert [busiest(10, n) for n in (1, 4, 5, 6, 9, 10, 99)] == [1, 0.3, 0.2, 0.2, 0.2, 0.1, 0.1]
    assert limits(COSTS, Layout(cores=64, partitions=10, orchestrators=5, workers=9))[0].change.startswith("10 ")
    assert rate("workers", Layout(partitions=10, workers=99)) == rate("workers", Layout(partitions=10, workers=10))


def test_a_stations_cost_is_never_more_than_all_cores_have() -> None:
    plain = Layout(machines=3, cores=2, partitions=12, replication=3)
    assert rate("cores", plain) == pytest.approx(6e6 / (180 + 3 * 20))


def test_a_burst_is_slower_than_a_stream_and_a_long_one_hardly() -> None:
    layout = Layout(cores=8, partitions=8, workers=4, lanes=16, wait_ms=50)
    short, long = (burst_runs_per_s(COSTS, layout, runs) for runs in (64, 100_000))
    assert short < 0.8 * 1_280
    assert 0.95 * 1_280 < long <= 1_280
    assert burst_runs_per_s(COSTS, layout._replace(workers=1, lanes=10), 100) == 200
    assert burst_runs_per_s(COSTS, Layout(), 64) == limits(COSTS, Layout())[0].runs_per_s


@pytest.mark.parametrize("machines", [1, 10, 100])
def test_the_suggested_processes_use_the_cores_if_there_are_partitions_enough(machines: int) -> None:
    layout = suggested(COSTS, machines=machines, cores=8, partitions=100)
    found = {limit.station: limit.runs_per_s for limit in limits(COSTS, layout)}
    if machines < 100:
        assert min(found, key=lambda station: found[station]) == "cores"
        fewer = layout._replace(orchestrators=layout.orchestrators - 1)
        assert machines == 1 or limits(COSTS, fewer)[0].station == "orchestrators"
    else:
        assert (layout.orchestrators, layout.workers) == (100, 100)
        assert limits(COSTS, layout)[0].station == "orchestrators"


def test_open_runs_are_shared_by_partitions_and_their_memory_by_processes() -> None:
    costs = StateCosts(open_run_bytes=1_000, checkpoint_bytes=60, restore_us=20)
    size = state_size(costs, open_runs=1_000_000, partitions=10, orchestrators=4)
    assert (size.open_runs, size.checkpoint_bytes, size.restore_s) == (100_000, 6_000_000, 2)
    assert size.process_bytes == pytest.approx(300_000_000), "three partitions of ten"
    assert size.process_restore_s == pytest.approx(6)


def test_partitions_of_all_topics_are_those_that_are_created() -> None:
    own = [spec for spec in topic_specs(TOPOLOGY) if spec.name not in TOPOLOGY.topics]
    size = group_size(agents=len(TOPOLOGY.agents), partitions=6, workers=9, brokers=3, replication=3)
    assert size.partitions == sum(spec.partitions for spec in own)
    assert size.replicas_per_broker == size.partitions
    assert size.coordinator_requests_per_s == 6 * MEMBER_REQUESTS_PER_S
    assert group_size(agents=20, partitions=1_000, workers=1, brokers=1, replication=3).brokers_min == 19


def test_what_a_member_asks_its_coordinator_follows_from_its_pace() -> None:
    assert MEMBER_REQUESTS_PER_S == 1_000 / HEARTBEAT_MS + 1_000 / partitions.COMMIT_EVERY_MS
