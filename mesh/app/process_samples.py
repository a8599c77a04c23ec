"""The samples of a process: its plain counts read at the moment of a scrape, as the table of instruments names them."""

from collections.abc import Iterator

from mesh.app.process import Process
from mesh.core.metrics.instruments import ANSWERS, OTHER, REFUSED, MetricSample, known_reason
from mesh.core.metrics.measurements import AGENT
from mesh.core.run.state import ENDINGS
from mesh.core.topology.model import Topology
from mesh.services.intake import Intake
from mesh.services.monitor import Monitor
from mesh.services.orchestrator import Orchestrator
from mesh.services.worker import Worker

BUDGETS = {"budget_usd": "usd", "budget_tokens": "tokens"}
"""Reason code of a refusal → the budget."""
REFUSED_REDRIVES = ("duplicate_redrive", "nothing_to_redrive")
MICROS = 1_000_000


def samples(process: Process | None, topology: Topology, version: str) -> Iterator[MetricSample]:
    """Yield all samples of a process; without one, those that need none."""
    yield MetricSample("mesh_build_info", (topology.name, version), 1)
    if process is None:
        return
    for holding in process.holdings():
        yield MetricSample("mesh_partitions_assigned", (holding.group,), holding.partitions)
    if process.lag is not None:
        yield from process.lag.samples()
    if process.monitor is not None:
        yield from _of_monitor(process.monitor, topology)
    if process.worker is not None:
        yield from _of_worker(process.worker, topology)
    if process.intake is not None:
        yield from _of_intake(process.intake)
    if process.orchestrator is not None:
        yield from _of_orchestrator(process.orchestrator, topology)


def _of_worker(worker: Worker, topology: Topology) -> Iterator[MetricSample]:
    for agent, consumer in worker.consumers.items():
        counts, topic, own = consumer.counts, topology.tasks(agent), (agent,)
        for outcome in ANSWERS:
            yield MetricSample("mesh_events_processed_total", (agent, topic, outcome), getattr(counts, outcome))
        yield MetricSample("mesh_process_duration_seconds", own, counts.work)
        yield MetricSample("mesh_queue_wait_seconds", own, counts.waiting)
        yield MetricSample("mesh_tasks_running", own, consumer.lanes.running)
        yield MetricSample("mesh_calls_abandoned", own, consumer.abandoned_calls)
        yield MetricSample("mesh_agent_stopped", own, int(consumer.paused))
        yield MetricSample("mesh_tokens_total", own, counts.tokens)
        yield MetricSample("mesh_cost_usd_total", own, counts.usd_micros / MICROS)


def _of_intake(intake: Intake) -> Iterator[MetricSample]:
    yield MetricSample("mesh_requests_total", ("accepted",), intake.accepted)
    yield MetricSample("mesh_requests_total", ("rejected",), intake.rejected.total())
    for code, count in intake.rejected.items():
        yield MetricSample("mesh_dead_letters_total", ("", known_reason(code)), count)


def _of_monitor(monitor: Monitor, topology: Topology) -> Iterator[MetricSample]:
    active = {(fact.name, fact.scope.removeprefix(AGENT)) for fact in monitor.alerts.values()}
    for name, rule in topology.alerts.items():
        for scope in (rule.of,) if rule.of else topology.agents:
            yield MetricSample("mesh_alert_active", (name, scope), int((name, scope) in active))


def _of_orchestrator(orchestrator: Orchestrator, topology: Topology) -> Iterator[MetricSample]:
    yield MetricSample("mesh_runs_open", (), orchestrator.open_runs)
    for ending in ENDINGS:
        yield MetricSample("mesh_runs_ended_total", (ending,), orchestrator.endings[ending])
    letters: dict[tuple[str, str], int] = {}
    by_code = dict.fromkeys((*BUDGETS, "cycle"), 0)
    for (agent, code), count in orchestrator.letters.items():
        labels = (agent if not agent or agent in topology.agents else OTHER, known_reason(code))
        letters[labels] = letters.get(labels, 0) + count
        by_code[code] = by_code.get(code, 0) + count
    for labels, count in letters.items():
        yield MetricSample("mesh_dead_letters_total", labels, count)
    for code, budget in BUDGETS.items():
        yield MetricSample("mesh_budget_stops_total", (budget,), by_code[code])
    yield MetricSample("mesh_cycles_detected_total", (), by_code["cycle"])
    for ending in ENDINGS:
        yield MetricSample("mesh_redrives_total", (ending,), orchestrator.redriven[ending])
    refused = sum(orchestrator.notes[code] for code in REFUSED_REDRIVES)
    yield MetricSample("mesh_redrives_total", (REFUSED,), refused)
    for code, count in orchestrator.notes.items():
        yield MetricSample("mesh_notes_total", (known_reason(code),), count)
