"""Plain and packed headers on one Kafka, with restarts between them. See tests/test_forms.py."""

import secrets
from pathlib import Path

import pytest

from tests.test_forms import change_forms

pytestmark = pytest.mark.live


async def test_the_form_may_change_while_runs_are_open(kafka_bootstrap: str, tmp_path: Path) -> None:
    mark = f"forms-{secrets.token_hex(4)}"
    await change_forms(f"kafka://{kafka_bootstrap}", tmp_path / "board.db", mark, ["plain", "packed", "plain"])
