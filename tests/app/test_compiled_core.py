"""A compiled form that is older than its sources is refused with words; one of an installed wheel is never old."""

import os
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import pytest

from mesh.app.compiled_core import LIBRARY, changed_sources, require_fresh
from mesh.core.errors import ConfigInvalid

COMPILED_AT_S = 1_800_000_000


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A checkout whose core was compiled after its two modules were written."""
    folder = tmp_path / "mesh"
    (folder / "core" / "run").mkdir(parents=True)
    (tmp_path / "pyproject.toml").touch()
    for path in (folder / "core" / "codes.py", folder / "core" / "run" / "decide.py"):
        path.touch()
        os.utime(path, (COMPILED_AT_S, COMPILED_AT_S))
    (folder / f"{LIBRARY}{EXTENSION_SUFFIXES[0]}").touch()
    os.utime(folder / f"{LIBRARY}{EXTENSION_SUFFIXES[0]}", (COMPILED_AT_S, COMPILED_AT_S))
    return folder


def edit(path: Path) -> Path:
    os.utime(path, (COMPILED_AT_S + 1, COMPILED_AT_S + 1))
    return path


def test_what_was_compiled_from_these_sources_is_used(package: Path) -> None:
    require_fresh(package)


def test_one_edited_source_is_named(package: Path) -> None:
    edit(package / "core" / "run" / "decide.py")
    with pytest.raises(ConfigInvalid) as raised:
        require_fresh(package)
    assert str(raised.value) == (
        "the compiled core is older than mesh/core/run/decide.py; `make fast` compiles it again, `make pure` removes it"
    )


def test_more_edited_sources_are_counted(package: Path) -> None:
    edited = [edit(package / "core" / "codes.py"), edit(package / "core" / "run" / "decide.py")]
    assert changed_sources(package) == edited
    with pytest.raises(ConfigInvalid, match=r"mesh/core/codes\.py and 1 more"):
        require_fresh(package)


def test_the_library_of_another_python_does_not_count(package: Path) -> None:
    edit(package / "core" / "codes.py")
    (package / f"{LIBRARY}{EXTENSION_SUFFIXES[0]}").rename(package / f"{LIBRARY}.cpython-300-x86_64-linux-gnu.so")
    require_fresh(package)


def test_the_times_of_an_installed_wheel_do_not_count(package: Path) -> None:
    edit(package / "core" / "codes.py")
    (package.parent / "pyproject.toml").unlink()
    require_fresh(package)
