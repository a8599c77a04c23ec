"""The environment of a workload: a log with topics, and a board."""

import asyncio
import sqlite3
from pathlib import Path

from bench.field import Setup
from bench.workloads.run1 import TEXT


async def test_a_board_that_keeps_one_waiting_does_not_end_the_measuring(tmp_path: Path) -> None:
    path = tmp_path / "board.db"
    async with Setup(board=f"sqlite:{path}").field(TEXT) as field:
        await field.board.start()
        holder = sqlite3.connect(path, isolation_level=None)
        holder.execute("BEGIN IMMEDIATE")
        asyncio.get_running_loop().call_later(1, holder.close)
        await field.board.put("k", b"1")
        await field.board.close()
