"""Redis forgets, or its reply is lost: no version from before passes, no write happens twice."""

from pathlib import Path

import pytest

from tests.live.chaos.fault import CI
from tests.live.chaos.faults_board import BOARD, BoardFault

pytestmark = pytest.mark.live


@pytest.mark.parametrize("fault", BOARD, ids=lambda fault: str(fault.id))
async def test_redis_loses_data_or_replies_and_no_write_is_taken_for_another(fault: BoardFault, tmp_path: Path) -> None:
    _, wrong = await fault.act(tmp_path, CI)
    assert wrong == []
