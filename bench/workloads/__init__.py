"""The canonical workloads, one file each. A file holds `WORKLOAD`; to add one, write the file and name it in NAMES."""

import importlib
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, NamedTuple

from bench.field import Setup
from bench.report import Figure

NAMES: Final = (
    *("hop", "run1", "run3", "join", "fan", "latency", "io", "scale", "hotkey", "payload"),
    *("state", "fold", "replay", "replay_agent", "board", "coldstart", "memory", "recovery", "soak"),
)
"""In the order of the report."""


class Workload(NamedTuple):
    """One workload, runnable against any log."""

    name: str
    what: str
    """Short text that says what it measures."""
    how: str
    """The sentence that explains how."""
    run: Callable[[Setup], Awaitable[Sequence[Figure]]]
    on_log: bool = True
    """Whether a log takes part; else it is the same on all of them."""


def load(name: str) -> Workload:
    """The workload of a name. Raises KeyError."""
    if name not in NAMES:
        raise KeyError(name)
    found = importlib.import_module(f"bench.workloads.{name}").WORKLOAD
    assert isinstance(found, Workload)
    return found
