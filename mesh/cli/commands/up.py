"""`mesh up`: run services of the mesh, in this process or in several."""

import asyncio
import os
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Final

import typer

from mesh.adapters.machine_limits import raise_file_limit
from mesh.cli.framework.completion import agents as agent_names
from mesh.cli.framework.failure import report
from mesh.cli.framework.logs import Reporter, configure
from mesh.cli.framework.options import command, verb
from mesh.cli.framework.session import Session
from mesh.cli.framework.signals import Stop
from mesh.cli.framework.text import relocated
from mesh.cli.supervision.host import Host, Plan
from mesh.core.address import http_address
from mesh.core.errors import InvalidInput, MeshError, TopologyInvalid, leaf_errors
from mesh.core.suggest import did_you_mean

if TYPE_CHECKING:
    from mesh.core.scaling.policy import ScalingRule
    from mesh.core.task.agent import Agent

ORDER: Final = ("orchestrator", "intake", "worker", "monitor")
app = verb()


@command(app, "up", example="mesh up --workers 3")
async def up(
    session: Session,
    services: Annotated[
        list[str] | None, typer.Argument(metavar="SERVICE", help="orchestrator, intake, worker, monitor, or all")
    ] = None,
    *,
    workers: Annotated[
        int | None, typer.Option(min=1, max=256, metavar="N", help="worker processes; default: 1")
    ] = None,
    autoscale: Annotated[
        str | None, typer.Option(metavar="min=1,max=8", help="scale the number of worker processes with the backlog")
    ] = None,
    agent: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", autocompletion=agent_names, help="agents of the worker; default: all"),
    ] = None,
    http: Annotated[
        str | None, typer.Option(metavar="[HOST:]PORT", help="serve /metrics, /healthz and /readyz there")
    ] = None,
    create_topics: Annotated[bool, typer.Option("--create-topics", help="on Kafka: create missing topics")] = False,
    child: Annotated[int | None, typer.Option("--child", hidden=True, help="file for the ready signal")] = None,
) -> int:
    """Run services of the mesh until Ctrl-C.

    The first Ctrl-C drains, the second stops at once. Without a SERVICE all of them run in this process (the
    monitor only where topics.yaml declares alerts), on the embedded file unless another log is set.

    Missing topics are created on the embedded file; on Kafka only with --create-topics. While the log is unreachable,
    the services wait for it.

    --http serves metrics for Prometheus (/metrics), whether the process is alive (/healthz) and whether it does its
    work (/readyz), on this machine alone unless a HOST is named. Worker process N of --workers has the port plus N.

    --autoscale takes names of KEDA: min, max, cooldownPeriod (default 30s) and pollingInterval (default 1s).
    lagThreshold is the number of waiting tasks of an agent for each worker; default: its lanes. ageThreshold is the age
    of an agent's oldest task; default: its timeout.
    """
    from mesh.settings import working_folder

    configure(session.output, service=True)
    chosen, folder = _choose(services or [], alerts=bool(session.topology.alerts)), str(working_folder())
    agents = _agents(session, agent or [])
    rule = None if autoscale is None else _rule(session, autoscale, workers, chosen)
    reporter = Reporter(session.output)
    _warn_about_file_limit(reporter, len(session.topology.agents))
    with Stop(reporter.info if child is None else _ignore_drain) as stop:
        plan = Plan(chosen, agents, workers or 1, rule, create_topics, child, _http(session, http), folder)
        host = Host(session, reporter, stop, plan)
        try:
            await host.run()
            code = stop.code
        except (MeshError, BaseExceptionGroup) as error:
            first = leaf_errors(error)[0]
            if not host.abandoned_calls or not isinstance(first, MeshError):
                raise
            code = report(session.output, first)
        except asyncio.CancelledError as error:
            raise MeshError(
                "everything in this process was cancelled from within, which only an agent can do",
                remedy="Let agents cancel only tasks that they created. The mesh detects a task that does this",
            ) from error
    if child is None:
        reporter.info("stopped")
    if host.abandoned_calls:  # they would keep the loop from closing
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code


def _warn_about_file_limit(reporter: Reporter, agents: int) -> None:
    limit = raise_file_limit(agents)
    if limit.files_max < limit.files_needed:
        reporter.warning(
            f"this process may open {limit.files_max:,} files, and {agents} agents may need {limit.files_needed:,}:"
            " raise the hard limit (`ulimit -Hn`; systemd: LimitNOFILE=)",
            files_max=limit.files_max,
            files_needed=limit.files_needed,
        )


def _ignore_drain(sentence: str) -> None:
    """Report nothing: the parent reports that its children drain."""


def _choose(services: list[str], *, alerts: bool) -> tuple[str, ...]:
    """Return the services to run. By default a monitor is one of them only where there are alerts to watch: it takes
    time from the agents of its process, and `mesh windows` counts without it."""
    unknown = next((name for name in services if name not in (*ORDER, "all")), None)
    if unknown is not None:
        raise InvalidInput(
            f"no service is called {unknown!r}",
            code="usage",
            where="mesh up",
            expected=", ".join((*ORDER, "all")),
            remedy=did_you_mean(unknown, ORDER),
        )
    if "all" in services:
        return ORDER
    wanted = services or ORDER[: len(ORDER) if alerts else -1]
    return tuple(name for name in ORDER if name in wanted)


def _http(session: Session, option: str | None) -> tuple[str, int] | None:
    text = session.settings.http if option is None else option
    if not text:
        return None
    try:
        return http_address(text)
    except InvalidInput as error:
        if option is None:
            raise
        raise relocated(error, "--http", "usage") from error


def _rule(session: Session, text: str, workers: int | None, services: tuple[str, ...]) -> "ScalingRule":
    from mesh.cli.supervision.autoscale import check_partitions, parse_rule

    if workers is not None or "worker" not in services:
        both = "it cannot be given together with --workers"
        raise InvalidInput(
            both if workers is not None else "no worker is among the services",
            code="usage",
            where="--autoscale",
            remedy="Leave one of them out" if workers is not None else "Start it with `mesh up worker --autoscale …`",
        )
    rule = parse_rule(text)
    check_partitions(rule, session.topology)
    return rule


def _agents(session: Session, names: list[str]) -> "Mapping[str, Agent]":
    from mesh.app.wiring import validate_agents

    session.require_agents(names)
    loaded, problems, _ = validate_agents(session.topology)
    if problems:
        raise TopologyInvalid(session.topology.path, problems)
    elsewhere = [name for name in names if session.topology.agents[name].faust]
    if elsewhere:
        spec = session.topology.agents[elsewhere[0]]
        raise InvalidInput(
            f"agent {spec.name!r} is run by the Faust app {spec.faust!r}",
            code="usage",
            where="--agent",
            remedy="Start that app, or remove `faust` from the agent in topics.yaml",
        )
    return {name: agent for name, agent in loaded.items() if not names or name in names}
