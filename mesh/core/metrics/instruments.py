"""The instruments of a running process in one table, which docs/reference/metrics.md shows.

Names follow the conventions of Prometheus: base units, `_total` for counters. The values of every label come from a
closed set (`label_values`), so the number of time series is bounded by topics.yaml. No label holds an id, a subject or
a text of an event.
"""

from collections.abc import Mapping
from typing import Final, NamedTuple

from mesh.core.metrics.durations import Durations
from mesh.core.metrics.measurements import MESH
from mesh.core.reason_codes import REASONS
from mesh.core.run.state import ENDINGS
from mesh.core.topology.model import FAUST_GROUP, SERVICE_GROUPS, Topology

COUNTER: Final = "counter"
GAUGE: Final = "gauge"
HISTOGRAM: Final = "histogram"
ANSWERS: Final = ("succeeded", "failed", "timed_out", "expired", "later", "left_alone", "rejected", "crash_loop")
"""Outcomes of an attempt at a task, as a worker counts them."""
REQUESTS: Final = ("accepted", "rejected")
REFUSED: Final = "refused"
"""Outcome of a redrive that came twice or found nothing to redrive."""
OTHER: Final = "other"
"""Stands for a value that is not in the closed set of its label, such as a reason code of a foreign worker."""


class Instrument(NamedTuple):
    """One metric. `service`: the service that counts it; "" for every process."""

    kind: str
    unit: str
    labels: tuple[str, ...]
    meaning: str
    service: str = ""


LABELS: Final[dict[str, str]] = {
    "agent": "an agent of topics.yaml; empty: none is concerned",
    "alert": "an alert of topics.yaml",
    "budget": "`usd`, `tokens`",
    "ending": "an ending of a run",
    "group": "a consumer group of the mesh",
    "mesh": "the name of the mesh",
    "outcome": "of an attempt: "
    + ", ".join(f"`{name}`" for name in ANSWERS)
    + "; of a request: `accepted`, `rejected`; of a redrive: an ending of a run, `refused`",
    "partition": "a partition of the topic",
    "reason": "a reason code of the table; `other`: a code that is not in it",
    "scope": "`mesh`, or an agent",
    "topic": "a topic of the mesh",
    "version": "the version of the package",
}
"""Label → where its values come from."""

INSTRUMENTS: Final[dict[str, Instrument]] = {
    "mesh_build_info": Instrument(GAUGE, "", ("mesh", "version"), "1, with the version of this process"),
    "mesh_partitions_assigned": Instrument(
        GAUGE, "{partition}", ("group",), "partitions that this process holds and has restored"
    ),
    # --------------------------------------------------------------------------------------------------- workers
    "mesh_events_processed_total": Instrument(
        COUNTER, "{event}", ("agent", "topic", "outcome"), "attempts at tasks that were answered", "worker"
    ),
    "mesh_process_duration_seconds": Instrument(
        HISTOGRAM, "s", ("agent",), "time of an attempt in the agent's function", "worker"
    ),
    "mesh_queue_wait_seconds": Instrument(
        HISTOGRAM, "s", ("agent",), "time from a task's record on the log to the begin of the attempt", "worker"
    ),
    "mesh_tasks_running": Instrument(GAUGE, "{task}", ("agent",), "tasks in work", "worker"),
    "mesh_calls_abandoned": Instrument(
        GAUGE, "{call}", ("agent",), "calls that still run after they were given up", "worker"
    ),
    "mesh_agent_stopped": Instrument(GAUGE, "", ("agent",), "1 while `mesh stop` holds the agent, else 0", "worker"),
    "mesh_tokens_total": Instrument(COUNTER, "{token}", ("agent",), "tokens that agents reported", "worker"),
    "mesh_cost_usd_total": Instrument(COUNTER, "{USD}", ("agent",), "money that agents reported", "worker"),
    # ---------------------------------------------------------------------------------------------------- intake
    "mesh_requests_total": Instrument(
        COUNTER, "{request}", ("outcome",), "records of ingress topics, by what became of them", "intake"
    ),
    # ---------------------------------------------------------------------------------------------- orchestrator
    "mesh_runs_open": Instrument(
        GAUGE, "{run}", (), "runs of this process's partitions that have not ended", "orchestrator"
    ),
    "mesh_runs_ended_total": Instrument(COUNTER, "{run}", ("ending",), "runs that ended", "orchestrator"),
    "mesh_dead_letters_total": Instrument(
        COUNTER,
        "{record}",
        ("agent", "reason"),
        "dead letters, those of refused requests included",
        "orchestrator, intake",
    ),
    "mesh_budget_stops_total": Instrument(
        COUNTER, "{task}", ("budget",), "tasks that were refused because of a budget", "orchestrator"
    ),
    "mesh_cycles_detected_total": Instrument(COUNTER, "{task}", (), "hops refused as a cycle", "orchestrator"),
    "mesh_redrives_total": Instrument(
        COUNTER,
        "{run}",
        ("outcome",),
        "runs that ended after a redrive, by ending; `refused`: redrives that came twice or found nothing to redrive",
        "orchestrator",
    ),
    "mesh_consumer_lag_records": Instrument(
        GAUGE,
        "{record}",
        ("group", "topic", "partition"),
        "records that a group has not committed; all groups of the mesh, read every 10 s",
        "orchestrator",
    ),
    "mesh_oldest_unread_age_seconds": Instrument(
        GAUGE, "s", ("group", "topic"), "age of the oldest of these records; 0: there is none", "orchestrator"
    ),
    "mesh_notes_total": Instrument(
        COUNTER, "{record}", ("reason",), "drops and other decisions without an effect", "orchestrator"
    ),
    # --------------------------------------------------------------------------------------------------- monitor
    "mesh_alert_active": Instrument(
        GAUGE, "", ("alert", "scope"), "1 while an alert of topics.yaml is active, else 0", "monitor"
    ),
}
"""Name → instrument, in the order of the page."""


class MetricSample(NamedTuple):
    """A value of an instrument. `labels`: the values of its labels, in the order of its row."""

    name: str
    labels: tuple[str, ...]
    value: "float | Durations"


def known_reason(code: str) -> str:
    """Return a reason code of the table as it is, any other as OTHER."""
    return code if code in REASONS else OTHER


def label_values(topology: Topology) -> Mapping[str, frozenset[str]]:
    """Return all values that a label may have. The labels of the process itself have one value and are left out."""
    groups = (*SERVICE_GROUPS, FAUST_GROUP, *topology.agents)
    topics = {rule.name: rule.partitions for rule in topology.topics.values()}
    topics |= dict.fromkeys(
        (topology.inbox, topology.outcomes, topology.dead, *map(topology.tasks, topology.agents)),
        topology.inbox_partitions,
    )
    return {
        "agent": frozenset(("", *topology.agents, OTHER)),
        "alert": frozenset(topology.alerts),
        "budget": frozenset(("usd", "tokens")),
        "ending": frozenset(ENDINGS),
        "group": frozenset(map(topology.group, groups)),
        "outcome": frozenset((*ANSWERS, *REQUESTS, *ENDINGS, REFUSED)),
        "partition": frozenset(map(str, range(max(topics.values())))),
        "reason": frozenset((*REASONS, OTHER)),
        "scope": frozenset((MESH, *topology.agents)),
        "topic": frozenset(topics),
    }
