"""The list of modules to compile: pyproject.toml has it, scripts/compiled.py reads it."""

import re
import tomllib
from importlib import import_module
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import pytest

from mesh.core.state.form import PURE, form

ROOT = Path(__file__).parents[1]
MODULES: list[str] = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["mesh"]["compiled"]["modules"]


@pytest.mark.parametrize("name", MODULES)
def test_a_listed_module_is_one_of_the_core(name: str) -> None:
    assert name.startswith("mesh.core.")
    assert ROOT.joinpath(*name.split(".")).with_suffix(".py").is_file()


@pytest.mark.skipif(form() == PURE, reason="`make fast` has not compiled the core")
@pytest.mark.parametrize("name", MODULES)
def test_a_listed_module_is_in_use_in_compiled_form(name: str) -> None:
    assert str(import_module(name).__file__).endswith(tuple(EXTENSION_SUFFIXES))


def test_no_module_is_listed_twice() -> None:
    assert len(set(MODULES)) == len(MODULES)


@pytest.mark.parametrize(("wanted", "needed"), [("1", {"mypy", "setuptools", "types-PyYAML", "pydantic"}), ("", set())])
def test_only_a_compiled_wheel_needs_the_compiler_and_the_types_of_libraries(
    wanted: str, needed: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MESH_COMPILED", wanted)
    monkeypatch.syspath_prepend(ROOT / "scripts")
    hook = import_module("wheel_hook").CompiledWheel
    named = {re.split(r"[<>=\[]", one)[0] for one in hook.dependencies(hook.__new__(hook))}
    assert needed <= named
    assert bool(named) == bool(needed)
