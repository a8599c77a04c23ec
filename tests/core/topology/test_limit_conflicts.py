"""Amounts in topics.yaml that contradict each other. Conflicts of agents: see test_validation."""

import pytest

from mesh.core.topology.loader import load
from tests.core.topology.test_validation import agent, mesh, only


@pytest.mark.parametrize("kind", ["inbox", "outcomes", "tasks"])
def test_records_are_kept_at_least_as_long_as_a_run_may_take(kind: str) -> None:
    text = mesh(agent("a", "in"), limits=f"{{deadline: 2h}}, retention: {{{kind}: 1h, dead: 1h}}")
    found = only(text)
    assert found.what == f"mesh.retention.{kind}: 3600s is shorter than a run may take, 7200s"
    assert load(text.replace(f"{kind}: 1h", f"{kind}: 2h")).retention.dead_ms == 3_600_000
