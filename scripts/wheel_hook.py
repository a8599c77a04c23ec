"""Hatchling's hook for wheels: with MESH_COMPILED=1 the wheel holds the compiled modules beside their sources.

Without it the wheel is pure, so an install from source needs no compiler.
"""

import os
import re
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import Any, Final

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

sys.path.insert(0, str(Path(__file__).parent))
from compiled import ROOT, compile_into

TOOLS: Final = frozenset({"mypy", "setuptools", "types-PyYAML"})
"""What compiling needs of the packages for developers."""


class CompiledWheel(BuildHookInterface[Any]):
    """Adds the compiled modules to the wheel, and the platform to its name."""

    def dependencies(self) -> list[str]:
        """Return what the build needs besides hatchling: tools, and the libraries whose types the compiler reads."""
        if not _is_wanted():
            return []
        project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
        tools = [one for one in project["optional-dependencies"]["dev"] if re.split(r"[^\w.-]", one)[0] in TOOLS]
        return [*project["dependencies"], *tools]

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, if asked. An editable install is what `make fast` compiles in place."""
        if version == "editable" or not _is_wanted():
            return
        folder = Path(tempfile.mkdtemp(prefix="mesh-compiled-"))
        for path in compile_into(folder):
            build_data["force_include"][str(path)] = path.relative_to(folder).as_posix()
        build_data.update(pure_python=False, infer_tag=True)


def _is_wanted() -> bool:
    return os.environ.get("MESH_COMPILED") == "1"
