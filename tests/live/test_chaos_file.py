"""The embedded log under the same kills: any process that shares the file may die at any moment."""

from pathlib import Path

from tests.live.chaos.fault import CI
from tests.live.chaos.field import Field, complaints
from tests.live.chaos.table import ON_FILE


async def test_processes_that_share_a_file_are_killed_and_nothing_is_lost(tmp_path: Path) -> None:
    async with Field(tmp_path, CI, brokers=0) as field:
        for fault in ON_FILE.values():
            await field.run(fault)
        assert complaints(*await field.verdict()) == []
