"""Tests in several processes (`pytest -n 2`): how they are distributed, and what a worker tells of tests it left out.

The tests of a file stay together. Those against real servers share a broker and wait most of the time. They are one
piece of work, which comes first."""

import os
from typing import Any

import pytest
from xdist.scheduler import LoadFileScheduling

LIVE = "tests/live/"
LEFT_OUT = pytest.StashKey[str]()
"""One line about live tests that cannot run here."""


class FilesAndLive(LoadFileScheduling):  # type: ignore[misc]  # no types there
    """A queue of files in the order of collection, for whichever worker is free."""

    def __init__(self, config: pytest.Config, log: Any = None) -> None:
        config.option.loadscopereorder = False
        super().__init__(config, log)

    def _split_scope(self, nodeid: str) -> str:
        return LIVE if nodeid.startswith(LIVE) else str(super()._split_scope(nodeid))


def live_first(items: list[pytest.Item]) -> None:
    """Sort tests against real servers to the front."""
    items.sort(key=lambda item: not item.nodeid.startswith(LIVE))


def leave_out(config: pytest.Config, items: list[pytest.Item], needed: dict[str, list[str]]) -> None:
    """Deselect tests that need what this machine lacks, by node id; raise UsageError if MESH_LIVE requires them.

    A worker cannot raise it: it runs no test at all, and its controller fails (see `fail_if_required`).
    """
    things = sorted({thing for of_test in needed.values() for thing in of_test})
    line = f"{len(needed)} test(s) need {', '.join(things)}, which this machine has not"
    output: dict[str, Any] | None = getattr(config, "workeroutput", None)
    if output is None and _required():
        raise pytest.UsageError(f"MESH_LIVE=required, but {line}")
    if output is not None:
        output["left_out"] = line
    config.stash[LEFT_OUT] = line
    dropped = [item for item in items if _required() or item.nodeid in needed]
    config.hook.pytest_deselected(items=dropped)
    items[:] = [item for item in items if item not in dropped]


def take_over(config: pytest.Config, output: dict[str, Any]) -> None:
    """Keep in the controller what a worker says at its end about tests that it left out."""
    if "left_out" in output:
        config.stash[LEFT_OUT] = output["left_out"]


def fail_if_required(session: pytest.Session) -> None:
    """Fail the session of a controller if its workers left out tests that are required."""
    if _required() and LEFT_OUT in session.config.stash:
        session.exitstatus = pytest.ExitCode.USAGE_ERROR


def report(reporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Write one line about tests that were left out."""
    if line := config.stash.get(LEFT_OUT, ""):
        begin = "MESH_LIVE=required, but" if _required() else "LIVE TESTS NOT RUN:"
        reporter.write_line(f"{begin} {line}", red=True, bold=True)


def _required() -> bool:
    return os.environ.get("MESH_LIVE") == "required"
