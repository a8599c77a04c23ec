"""A real board in a temporary file, and contexts of tasks that use it. Examples that could not run are reported."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from mesh import Context
from mesh.adapters.sqlite.board import SqliteBoard
from mesh.adapters.sqlite.storage.file import SqliteFile

ContextOf = Callable[..., Context]


@pytest.fixture
async def board(tmp_path: Path) -> AsyncIterator[SqliteBoard]:
    # A busy machine must not fail a test of agents: the deadline is not what is tested here.
    board = SqliteBoard(SqliteFile(tmp_path / "board.db"), timeout_ms=10_000)
    await board.start()
    yield board
    await board.close()


@pytest.fixture
def context(board: SqliteBoard) -> ContextOf:
    """`context("task-1")` is what a task's first attempt gets; the same name again is a repetition of that task."""

    def make(task_id: str = "task-1", *, run_id: str = "run-1", agent: str = "agent") -> Context:
        return Context(
            agent=agent, run_id=run_id, task_id=task_id, attempt=1, depth=1, path=(), deadline_ms=None, board=board
        )

    return make


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """A skipped test of the agents is one loud line, not a letter among dots."""
    skipped = [r for r in terminalreporter.stats.get("skipped", ()) if r.nodeid.startswith("tests/agents/")]
    for reason in sorted({report.longrepr[2] for report in skipped}):
        terminalreporter.write_line(f"{len(skipped)} tests of agents: {reason.removeprefix('Skipped: ')}", yellow=True)
