"""`mesh agents`: who hears what, and how much waits."""

import asyncio

from mesh.app.wiring import load_topology, open_log
from mesh.client import Mesh
from mesh.core.run.control import Switch
from mesh.settings import Settings
from tests.cli.conftest import Cli


def test_agents_are_listed_with_their_types_limits_and_lag(desk: Cli) -> None:
    rows = {row["agent"]: row for row in desk("agents", "--json").rows}
    assert list(rows) == ["greeter", "keeper", "breaker", "runner", "napper", "echo"]
    breaker = rows["breaker"]
    assert (breaker["hears"], breaker["emits"], breaker["run"]) == (["break.me"], ["noted"], "desk:smash")
    assert (breaker["timeout_ms"], breaker["attempts_max"], breaker["lag"]) == (5_000, 2, 0)
    assert rows["runner"]["visits_max"] == 3
    shown = desk("agents").out.splitlines()
    assert shown[0].split() == ["AGENT", "CONSUMES", "EMITS", "LAG", "TIMEOUT", "TRIES", "LANES", "RUN"]
    assert shown[3].split() == ["breaker", "break.me", "noted", "0", "5", "s", "2", "64", "desk:smash"]


def test_tasks_that_wait_for_an_agent_without_a_worker_are_its_lag(project: Cli) -> None:
    with project.up("orchestrator", "intake", "worker", "--agent", "greeter"):
        project("publish", "word.said", "-", input='{"word": "a"}\n{"word": "b"}\n')
        project("publish", "hello", '{"name": "x"}', "--wait", "--timeout", "200ms")
        rows = {row["agent"]: row["lag"] for row in project("agents", "--json").rows}
    assert (rows["echo"], rows["keeper"], rows["breaker"]) == (2, 1, 0)


def test_stopped_agents_say_since_when_and_by_whom(project: Cli) -> None:
    project("topics", "create")
    project("stop", "agent", "echo", "--why", "too loud")
    rows = {row["agent"]: row["stopped"] for row in project("agents", "--json").rows}
    assert (rows["echo"]["why"], rows["keeper"]) == ("too loud", None)
    shown = project("agents").out.splitlines()
    assert shown[0].split()[:2] == ["AGENT", "STOPPED"]
    assert " s ago by " in shown[6]


def test_open_breakers_are_reported(project: Cli) -> None:
    project("topics", "create")
    file = project.folder / "topics.yaml"
    rule = "breaker: {failures: 5, open: 10m}"
    file.write_text(file.read_text().replace('run: "desk:hear"', f'{rule}, run: "desk:hear"'))
    asyncio.run(_open_breaker(project, "echo"))
    rows = {row["agent"]: row["breaker"] for row in project("agents", "--json").rows}
    assert (rows["echo"]["why"], rows["echo"]["state"], rows["keeper"]) == ("5 failures in a row", "open", None)
    assert "breaker open " in project("agents").out.splitlines()[6]
    file.write_text(file.read_text().replace("open: 10m", "open: 1ms"))
    rows = {row["agent"]: row["breaker"] for row in project("agents", "--json").rows}
    assert rows["echo"]["state"] == "half-open", "its time is over: a task may try it"
    assert "breaker half-open, opened " in project("agents").out.splitlines()[6]


async def _open_breaker(cli: Cli, agent: str) -> None:
    """As the mesh does it."""
    log = open_log(Settings(log=f"sqlite:{cli.folder / '.mesh' / 'mesh.db'}"))
    await log.start()
    switch = Switch("breaker", agent, "opened", "/mesh/desk", "5 failures in a row")
    await Mesh(log, load_topology(str(cli.folder / "topics.yaml"))).send_switch(switch)
    await log.close()


def test_without_a_mesh_agents_are_listed_without_lag(project: Cli) -> None:
    done = project("agents")
    assert done.code == 0
    assert "no mesh here yet" in done.err
    assert not (project.folder / ".mesh").exists()
