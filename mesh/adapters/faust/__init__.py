"""Faust (faust-streaming): the monitor as a Faust app. Imported only where a command asks for it."""

from importlib import import_module
from typing import Any


def __getattr__(name: str) -> Any:
    """Return `join`, which is in `mesh.faust`: it composes a worker, and an adapter knows none."""
    if name == "join":
        return import_module("mesh.faust").join
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
