"""The compiled form of a checkout (`make fast`): it must be as new as its sources.

Python prefers a compiled module to its source, so an edit would have no effect, without a word. A wheel needs no such
check: it holds both forms of one source.
"""

from collections.abc import Sequence
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Final

from mesh.core.errors import ConfigInvalid

PACKAGE: Final = Path(__file__).resolve().parents[1]
LIBRARY: Final = "compiled__mypyc"
"""Stem of the file in the package that holds all compiled code (`LIBRARY` of scripts/compiled.py)."""


def require_fresh(package: Path = PACKAGE) -> None:
    """Raise ConfigInvalid if modules of a checkout were compiled from older sources."""
    if changed := changed_sources(package):
        others = f" and {len(changed) - 1} more" if changed[1:] else ""
        raise ConfigInvalid(
            f"the compiled core is older than {changed[0].relative_to(package.parent)}{others}; "
            "`make fast` compiles it again, `make pure` removes it"
        )


def changed_sources(package: Path = PACKAGE) -> Sequence[Path]:
    """Return the sources of the core that were changed after they were compiled. Empty if there is no compiled form.

    All of the core counts: compiled code has constants of other modules built in.
    """
    libraries = [package / f"{LIBRARY}{suffix}" for suffix in EXTENSION_SUFFIXES]
    compiled_ns = max((library.stat().st_mtime_ns for library in libraries if library.is_file()), default=None)
    if compiled_ns is None or not (package.parent / "pyproject.toml").is_file():
        return []
    return sorted(path for path in (package / "core").rglob("*.py") if path.stat().st_mtime_ns > compiled_ns)
