"""A capacity model: the runs a second of a number of machines, and the station that limits them.

Every station that a run passes has a maximum rate; the slowest one is the limit. The stations:

    cores          of all machines, for the CPU time of all processes and of the log
    orchestrators  each is one core at most, and one partition of the inbox belongs to one of them
    workers        each is one core at most, and one partition of a task topic belongs to one of them
    lanes          tasks that wait at the same time (Little's law: as many as arrive while one waits)
    log            records a second from a producer that does nothing else
    coordinator    requests of one group's members, all of which one broker answers
    one key        tasks of one ordering key, which run one after the other

`Costs` come from results of `mesh bench`, see bench/costs.py; a `Layout` describes the machines and processes. Two
assumptions are not measured: partitions are equally busy (keys are hashed), and a core of another machine is as fast as
one of this machine. Near a limit queues grow without end, so plan for `UTILISATION` of it.
"""

from math import ceil, log, sqrt
from typing import Final, NamedTuple

UTILISATION: Final = 0.7
"""Share of a limit to plan for: a station that is busy u of the time makes a run 1 / (1 - u) times as long."""
MEMBER_REQUESTS_PER_S: Final = 22.0
"""Requests of a busy worker to its group's coordinator: two heartbeats, and a commit each 50 ms."""
COORDINATOR_REQUESTS_PER_S: Final = 10_000
"""That one broker answers beside its other work. Assumed, not measured."""
REPLICAS_PER_BROKER_MAX: Final = 4_000
"""Copies of partitions on one broker, as operators of Kafka advise; a rule of thumb, not measured."""


class Costs(NamedTuple):
    """The measured costs of one run; the agents' own work is in `worker_us`."""

    orchestrator_us: float
    worker_us: float
    client_us: float = 0.0
    """CPU time of whoever asks and watches, on the same cores."""
    broker_us: float = 0.0
    """CPU time of the broker; 0 where there is none, or where it was not measured."""
    records: float = 0.0
    """Appended to all topics."""
    records_bytes: float = 0.0
    """Their keys, values and headers together."""
    log_records_per_s: float | None = None
    """Rate of the log with one producer that does nothing else; None: not measured."""

    @property
    def all_us(self) -> float:
        """Return the CPU time of all processes."""
        return self.orchestrator_us + self.worker_us + self.client_us + self.broker_us


class Layout(NamedTuple):
    """Machines and processes. Each machine has a broker, if the log has brokers."""

    machines: int = 1
    cores: int = 2
    """Cores of one machine."""
    partitions: int = 6
    """Partitions of the inbox and of every task topic."""
    orchestrators: int = 1
    workers: int = 1
    """Processes that run the agent; of a mesh with several agents, the busiest one's."""
    lanes: int = 64
    wait_ms: float = 0.0
    """Time for which a task waits without using a core, with the time that the mesh adds."""
    tasks: float = 1.0
    """That a run has of the agent."""
    replication: int = 1
    """Copies of each record. Each is believed to cost a broker as much as the first."""
    brokered: bool = False
    """Whether a broker coordinates the groups; the embedded file does that by itself."""
    keys: int | None = None
    """Ordering keys of the agent that are busy at the same time; None: as many as runs."""


class Limit(NamedTuple):
    """One station."""

    station: str
    runs_per_s: float
    change: str
    """The change that raises it."""


def busiest(partitions: int, processes: int) -> float:
    """Share of all work that the process with the most partitions has: no process gets a part of a partition."""
    return ceil(partitions / min(processes, partitions)) / partitions


def limits(costs: Costs, layout: Layout) -> list[Limit]:
    """All stations that this layout has, the slowest first."""
    broker_us = costs.broker_us * layout.replication
    found = [
        Limit(
            "cores",
            layout.machines * layout.cores * 1e6 / (costs.all_us - costs.broker_us + broker_us),
            "more machines; then as many more processes",
        ),
        _processes(layout, "orchestrators", layout.orchestrators, costs.orchestrator_us),
        _processes(layout, "workers", layout.workers, costs.worker_us),
    ]
    share = busiest(layout.partitions, layout.workers)
    if layout.wait_ms:
        at_once = layout.lanes / share
        found.append(
            Limit("lanes", at_once / (layout.wait_ms / 1e3 * layout.tasks), "more `lanes` of the agent, then workers")
        )
    if costs.log_records_per_s and costs.records:
        taken = costs.log_records_per_s * layout.machines / (costs.records * layout.replication)
        found.append(Limit("log", taken, "more brokers; fewer steps or smaller payloads a run"))
    if layout.brokered:
        members = COORDINATOR_REQUESTS_PER_S / MEMBER_REQUESTS_PER_S
        change = "several agents, each with a group of its own, or commits further apart (COMMIT_EVERY_MS)"
        found.append(Limit("coordinator", members * 1e6 / costs.worker_us, change))
    if layout.keys is not None:
        one_us = layout.wait_ms * 1e3 + costs.worker_us / max(layout.tasks, 1.0)
        found.append(
            Limit("one key", layout.keys * 1e6 / (one_us * layout.tasks), "a finer `key:` of the agent, or none")
        )
    return sorted(found, key=lambda limit: limit.runs_per_s)


def _processes(layout: Layout, station: str, processes: int, cpu_us: float) -> Limit:
    rate = 1e6 / (cpu_us * busiest(layout.partitions, processes)) if cpu_us else float("inf")
    if processes >= layout.partitions:
        change = "a new mesh with more partitions (another `prefix`): those of the inbox are frozen"
    else:
        better = next(n for n in range(processes + 1, layout.partitions + 1) if _better(layout, n, processes))
        change = f"{better} {station} instead of {processes}, if there are cores"
    return Limit(station, rate, change)


def _better(layout: Layout, processes: int, than: int) -> bool:
    return busiest(layout.partitions, processes) < busiest(layout.partitions, than)


def burst_runs_per_s(costs: Costs, layout: Layout, runs: int) -> float:
    """Return the runs a second of `runs` runs requested at once, from the first request to the last outcome.

    As `limits`, but with few runs some worker has more than its share, and its last round of lanes is not full.
    """
    rate = limits(costs, layout)[0].runs_per_s
    if not layout.wait_ms:
        return rate
    mean = runs * busiest(layout.partitions, layout.workers)
    workers = min(layout.workers, layout.partitions)
    # The largest of n Poisson numbers lies about sqrt(2 ln n) standard deviations above their mean.
    most = mean + sqrt(2 * log(workers) * mean)
    rounds = ceil(most * layout.tasks / layout.lanes)
    return min(rate, runs * 1e3 / (rounds * layout.wait_ms))


def suggested(
    costs: Costs, *, machines: int, cores: int, partitions: int, replication: int = 1, brokered: bool = True
) -> Layout:
    """As few processes as use all cores, for agents that do not wait; fewer where there are not enough partitions."""
    plain = Layout(machines, cores, partitions, partitions, partitions, replication=replication, brokered=brokered)
    goal = next(limit for limit in limits(costs, plain) if limit.station == "cores").runs_per_s

    def enough(cpu_us: float) -> int:
        fitting = (n for n in range(1, partitions + 1) if 1e6 / (cpu_us * busiest(partitions, n)) >= goal)
        return next(fitting, partitions)

    return plain._replace(orchestrators=enough(costs.orchestrator_us), workers=enough(costs.worker_us))


# ------------------------------------------------------------------------------------------------- state and groups


class StateCosts(NamedTuple):
    """The measured costs of an open run; see the workloads state and recovery."""

    open_run_bytes: float
    """In memory."""
    checkpoint_bytes: float
    """On the log, compressed."""
    restore_us: float
    """Until it lives again with another owner after a kill: the checkpoint is loaded, the tail folded."""


class StateSize(NamedTuple):
    """The sizes of one inbox partition, and of one process with its share of the partitions."""

    open_runs: float
    checkpoint_bytes: float
    restore_s: float
    process_bytes: float
    """Memory of all open runs of one orchestrator."""
    process_restore_s: float
    """Seconds to restore all partitions of one orchestrator in one successor."""


def state_size(costs: StateCosts, *, open_runs: float, partitions: int, orchestrators: int) -> StateSize:
    """Return the sizes for a number of open runs."""
    each = open_runs / partitions
    mine = open_runs * busiest(partitions, orchestrators)
    restore_s = costs.restore_us / 1e6
    return StateSize(
        each, each * costs.checkpoint_bytes, each * restore_s, mine * costs.open_run_bytes, mine * restore_s
    )


class GroupSize(NamedTuple):
    """The load of a mesh on its brokers, besides records."""

    partitions: int
    """Partitions of all topics."""
    replicas_per_broker: float
    brokers_min: int
    """So that no broker holds more than is advised."""
    coordinator_requests_per_s: float
    """Requests of the group with the most members."""
    members_max: int
    """Members of one group that the assumed coordinator can serve."""


def group_size(*, agents: int, partitions: int, workers: int, brokers: int, replication: int) -> GroupSize:
    """Topics and groups of a mesh with so many agents: inbox, outcomes, dead, checkpoints, and one topic an agent, each
    with all partitions; seven of one partition. Domain topics come on top."""
    every = partitions * (agents + 4) + 7
    copies = every * replication
    return GroupSize(
        every,
        copies / brokers,
        max(replication, ceil(copies / REPLICAS_PER_BROKER_MAX)),
        min(workers, partitions) * MEMBER_REQUESTS_PER_S,
        int(COORDINATOR_REQUESTS_PER_S / MEMBER_REQUESTS_PER_S),
    )
