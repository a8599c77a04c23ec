"""The form of the core: compiled by mypyc, or pure Python. Both are the same source and decide the same."""

from typing import Final

from mesh.core.state import partition_state

COMPILED: Final = "compiled"
PURE: Final = "pure Python"


def form() -> str:
    """Return the form that this process runs: `COMPILED` or `PURE`."""
    return PURE if (partition_state.__file__ or "").endswith(".py") else COMPILED
