"""Wall clocks that are wrong, or are set while the mesh runs, change nothing: all times are the log's."""

import signal
from pathlib import Path

import pytest

from tests.cli.clocks import Clocks, check


@pytest.fixture
def clocks(tmp_path: Path) -> Clocks:
    return Clocks(tmp_path / "clocks", tmp_path)


@pytest.mark.parametrize("step_s", [-600, 600])
def test_a_clock_that_is_set_while_the_mesh_runs_changes_nothing_and_is_reported(clocks: Clocks, step_s: int) -> None:
    with clocks.cli.up(env=clocks.of("up", 0)) as running:
        clocks.of("up", step_s)
        check(clocks.ask("a", step_s))
        said = running.err_until("differs from the log's")
        running.signal(signal.SIGTERM)
        running.end()
    assert f"{step_s}." in said or f"{step_s - 1}.9" in said or f"{step_s + 1}." in said


@pytest.mark.parametrize("ahead_s", [-3_600, 3_600])
def test_services_and_a_client_whose_clocks_are_hours_apart_work_together(clocks: Clocks, ahead_s: int) -> None:
    with (
        clocks.cli.up("orchestrator", env=clocks.of("orchestrator", ahead_s)),
        clocks.cli.up("intake", env=clocks.of("intake", 0)),
        clocks.cli.up("worker", env=clocks.of("worker", -ahead_s)),
    ):
        check(clocks.ask("a", ahead_s))
        check(clocks.ask("b", -ahead_s))
