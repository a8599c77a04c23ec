"""`mesh run cancel` reaches a function that runs in another process."""

import time

from tests.cli.conftest import Cli, until


def test_a_cancelled_run_stops_its_function_within_a_second(project: Cli) -> None:
    with project.up("--workers", "2"):
        run = str(project("publish", "nap.taken", '{"seconds": 55}', "--json").rows[0]["run"])
        until((project.folder / f"napping-{run}").exists)
        assert project("run", "cancel", run, "--yes").code == 0
        until(lambda: project("run", "show", run, "--json").rows[0]["state"] == "cancelled")
        ended = time.monotonic()
        until((project.folder / f"roused-{run}").exists)
        assert time.monotonic() - ended < 1
