"""The list of modules to compile: pyproject.toml has it, scripts/compiled.py reads it."""

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
