"""A log whose records are in plain form, then packed, then plain again: nothing is lost, and `mesh verify` is content.

So processes of the version before the packed form can be updated, and put back, while runs are open.
"""

from pathlib import Path

import pytest

from mesh.adapters.clock import SystemClock
from mesh.core.protocol.packed_form import PACKED
from mesh.operations.verification import verify
from tests.large_kit import Form, Large, large_mesh

ORDERS: list[list[Form]] = [["plain", "packed", "plain"], ["packed", "plain", "packed"]]
EACH = 40


async def forms(mesh: Large, topic: str) -> set[bool]:
    """Whether records of a topic are packed."""
    return {any(name == PACKED for name, _ in record.headers) for record in await mesh.records(topic)}


async def change_forms(log: str, board: Path, mark: str, order: list[Form]) -> None:
    """Restart a mesh in one form after the other while runs are open, and check what is left."""
    asked: set[str] = set()
    for form in order:
        async with large_mesh(log, board, mark, form=form) as mesh:
            run = await mesh.run(f"in-{form}-{len(asked)}", parts=2, fails=1)
            assert run["ending"] == "failed", run
            asked |= await mesh.put_good(EACH, first=len(asked))  # most are open when the process is stopped
    async with large_mesh(log, board, mark, form=order[-1]) as mesh:
        await mesh.ended(asked)
        for topic in (mesh.topology.inbox, mesh.topology.tasks("split"), mesh.topology.tasks("work")):
            assert await forms(mesh, topic) == {False, True}, topic
        for topic in (mesh.topology.outcomes, mesh.topology.dead, mesh.ends):
            assert await forms(mesh, topic) == {False}, topic
        for letter in await mesh.records(mesh.topology.dead):
            assert {"ce_id", "ce_type", "mesh-dlq-id"} <= {name for name, _ in letter.headers}
        found = await verify(mesh.log, mesh.topology, SystemClock())
        assert not found.report.violations, found.first
        assert found.report.endings["completed"] == len(order) * EACH
        assert found.report.endings["failed"] == len(order)


@pytest.mark.parametrize("order", ORDERS, ids="-".join)
async def test_the_form_may_change_while_runs_are_open(tmp_path: Path, order: list[Form]) -> None:
    await change_forms(f"sqlite:{tmp_path / 'mesh.db'}", tmp_path / "board.db", "t", order)
