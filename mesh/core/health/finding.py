"""A finding of `mesh doctor`: what is right or wrong, where, and the next command."""

from collections.abc import Iterable
from typing import Final, NamedTuple

OK: Final = "ok"
NOTE: Final = "note"
WARNING: Final = "warning"
ERROR: Final = "error"
LEVELS: Final = (OK, NOTE, WARNING, ERROR)
"""From harmless to grave. With an error the mesh does not work, or loses data."""


class Finding(NamedTuple):
    """One result of a check."""

    level: str
    where: str
    """A part of the mesh: `log`, `board`, a topic, an agent, a run."""
    what: str
    expected: str = ""
    got: str = ""
    next: str = ""
    """The next command, or what to do."""


def gravest(findings: Iterable[Finding]) -> str:
    """Return the gravest level; `ok` without findings."""
    return max((each.level for each in findings), key=LEVELS.index, default=OK)
