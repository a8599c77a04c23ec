"""The law that a replay only reads: what a room of READ_ONLY (house_rooms.py) may not name or call."""

import ast
from collections.abc import Iterator
from typing import Final

PORT_NAMES: Final = frozenset({"Log", "Member", "Listener", "commit", "commit_idle", "create_topics", "trim"})
"""Names of ports that only writers and members of groups need, and calls that nothing but a log or a member has."""
WRITERS: Final = frozenset({"append_all", "append_records", "TopologyStore", "CheckpointStore"})
"""Parts of mesh/runtime/ that write to a log."""
WRITING_NAMES: Final = PORT_NAMES | WRITERS
SHARED_NAMES: Final = frozenset({"append", "join"})
"""They write when they are awaited or taken from a log: lists have `append` and texts have `join`, too."""


def writing_uses(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Yield the line and the name of each use of what writes to a log."""
    awaited = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Await)}
    for node in ast.walk(tree):
        for name in _names(node, awaited):
            yield getattr(node, "lineno", 1), name


def _names(node: ast.AST, awaited: set[int]) -> Iterator[str]:
    named: list[str] = []
    if isinstance(node, ast.ImportFrom):
        named = [alias.name for alias in node.names]
    elif isinstance(node, ast.Name):
        named = [node.id]
    elif isinstance(node, ast.Constant):
        named = ["Log"] if node.value == "Log" else []
    elif isinstance(node, ast.Attribute):
        named = [node.attr]
        if ast.unparse(node.value).lower().endswith("log"):
            yield from SHARED_NAMES.intersection(named)
    elif isinstance(node, ast.Call):
        if id(node) in awaited and isinstance(node.func, ast.Attribute):
            yield from SHARED_NAMES.intersection([node.func.attr])
        if ast.unparse(node.func) == "getattr":
            values = [one.value for one in node.args if isinstance(one, ast.Constant)]
            yield from (WRITING_NAMES | SHARED_NAMES).intersection(map(str, values))
    yield from WRITING_NAMES.intersection(named)
