"""A monitor that is killed with `kill -9` in the middle of a window. Runs do not notice it."""

import asyncio
import signal

from mesh.adapters.sqlite import SqliteLog
from mesh.app.wiring import load_topology
from tests.cli.conftest import Cli
from tests.services.test_monitor import Parts, counted, published, recounted

DELIVERY = ("orchestrator", "intake", "worker")


def parts(cli: Cli, *, wait: bool) -> tuple[Parts, Parts]:
    """What is published, and what the log gives. `wait`: until a monitor that runs has counted everything."""

    async def read() -> tuple[Parts, Parts]:
        topology = load_topology(str(cli.folder / "topics.yaml"))
        log = SqliteLog(cli.folder / ".mesh" / "mesh.db")
        await log.start()
        try:
            if wait:
                await counted(log, topology)
            return await published(log, topology), await recounted(log, topology)
        finally:
            await log.close()

    return asyncio.run(read())


def say(cli: Cli, name: str) -> None:
    done = cli("publish", "hello", f'{{"name":"{name}"}}', "--wait")
    assert done.code == 0, done


def test_a_monitor_killed_in_a_window_counts_it_again(project: Cli) -> None:
    with project.up(*DELIVERY):
        with project.up("monitor") as monitor:
            for n in range(3):
                say(project, f"before-{n}")
            parts(project, wait=True)
            monitor.process.send_signal(signal.SIGKILL)
            monitor.process.wait(30)
        say(project, "without-it")  # the run ends: delivery has not noticed
        with project.up("monitor") as monitor:
            say(project, "after")
            parts(project, wait=True)
            monitor.signal(signal.SIGTERM)
            assert monitor.end().code == 143
    found, expected = parts(project, wait=False)
    assert found == expected
    assert sum(each.counts.get("requests", 0) for each in found.values()) == 5


def test_windows_are_the_same_with_and_without_a_monitor(project: Cli) -> None:
    with project.up(*DELIVERY):
        say(project, "first")
        without = project("windows", "--json", "--size", "10s", "--since", "@1").rows
        with project.up("monitor") as monitor:
            parts(project, wait=True)
            assert project("windows", "--json", "--size", "10s", "--since", "@1").rows == without
            monitor.signal(signal.SIGTERM)
            monitor.end()
        assert parts(project, wait=False)[0]
        assert project("windows", "--json", "--size", "10s", "--since", "@1").rows == without
