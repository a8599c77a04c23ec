"""Levels of findings."""

from mesh.core.health.finding import ERROR, LEVELS, NOTE, OK, WARNING, Finding, gravest


def test_the_gravest_level_counts() -> None:
    assert gravest([]) == OK
    assert gravest(Finding(level, "log", "") for level in (NOTE, ERROR, WARNING)) == ERROR
    assert LEVELS == (OK, NOTE, WARNING, ERROR)
