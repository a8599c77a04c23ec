"""Counts of an agent's tasks."""

import pytest

from mesh.services.worker.counts import Counts


@pytest.mark.parametrize(
    ("code", "name"),
    [
        ("timed_out", "timed_out"),
        ("expired", "expired"),
        ("later", "later"),
        ("rejected", "rejected"),
        ("crash_loop", "crash_loop"),
        ("exception", "failed"),
        ("bad_result", "failed"),
        ("schema", "failed"),
    ],
)
def test_timeouts_failures_and_retries_of_the_agent_are_counted_apart(code: str, name: str) -> None:
    counts = Counts()
    counts.failure(code)
    counts.failure(code)
    assert counts.shown() == {name: 2}


def test_only_what_happened_is_shown() -> None:
    assert Counts().shown() == {}
    assert Counts(succeeded=3, late=1).shown() == {"succeeded": 3, "late": 1}
