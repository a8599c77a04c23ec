"""Modules of agents, from the folder of topics.yaml, beside modules of the same name from elsewhere."""

import importlib
import queue
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mesh.runtime.execution import agent_modules
from mesh.runtime.execution.agent_modules import NameTaken, home, load, use

Folder = Callable[..., str]


@pytest.fixture(autouse=True)
def _undone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The interpreter as it was: no module of these folders stays."""
    before = set(sys.modules)
    monkeypatch.setattr(agent_modules, "_folder", agent_modules._Folder())
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path])
    yield
    for name in set(sys.modules) - before:
        del sys.modules[name]


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """Makes a folder of modules: `folder("a", desk="text of desk.py")`."""

    def made(name: str, **modules: str) -> str:
        for module, text in modules.items():
            path = tmp_path / name / f"{module}.py"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return str(tmp_path / name)

    return made


def test_a_module_and_what_it_imports_come_from_the_folder(folder: Folder) -> None:
    use(
        folder(
            "a",
            my_desk="import my_models\nfrom my_shop.till import SIZE\n",
            my_models="",
            **{"my_shop/till": "SIZE = 3\n"},
        )
    )
    assert load("my_desk").SIZE == 3
    assert load("my_shop.till") is sys.modules["my_shop.till"]


def test_a_file_named_like_a_module_of_the_library_is_not_imported_by_others(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(folder("a", my_desk="WHO = 'desk'\n", colorsys="raise SystemExit\n", redis="raise SystemExit\n"))
    monkeypatch.delitem(sys.modules, "colorsys", raising=False)
    assert load("my_desk").WHO == "desk"
    assert importlib.import_module("colorsys").rgb_to_hsv
    assert importlib.import_module("redis").Redis


@pytest.mark.parametrize("name", ["queue", "colorsys", "redis", "mesh"])
def test_an_agents_module_with_a_name_that_is_taken_is_refused(folder: Folder, name: str) -> None:
    where = folder("a", **{name: "def one(): ...\n"})
    use(where)
    with pytest.raises(NameTaken, match=f"`import {name}` means .*{name}.* not {where}/{name}.py") as caught:
        load(name)
    assert caught.value.file == f"{where}/{name}.py"


@pytest.mark.parametrize("line", ["import queue", "from queue import add_order"])
def test_an_import_inside_the_folder_of_a_name_that_is_taken_is_refused(folder: Folder, line: str) -> None:
    use(folder("a", my_desk=f"{line}\n", queue="def add_order(): ...\n"))
    with pytest.raises(NameTaken, match="import queue"):
        load("my_desk")


def test_the_standard_library_is_there_for_a_module_beside_a_file_that_it_does_not_import(folder: Folder) -> None:
    use(folder("a", my_desk="from queue import Queue\n", queue="raise SystemExit\n"))
    assert load("my_desk").Queue is queue.Queue


def test_the_folder_comes_before_an_installed_package_that_the_mesh_does_not_use(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(folder("installed", **{"my_kit/__init__": "WHO = 'installed'\n"}))
    use(folder("a", **{"my_kit/__init__": "WHO = 'mine'\n"}))
    assert load("my_kit").WHO == "mine"


def test_a_folder_without_init_does_not_replace_an_installed_package_and_is_refused_as_an_agents_module(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(folder("installed", **{"my_kit/__init__": "WHO = 'installed'\n"}))
    use(folder("a", **{"my_kit/desk": ""}))
    assert importlib.import_module("my_kit").WHO == "installed"
    with pytest.raises(NameTaken):
        load("my_kit.desk")


def test_two_folders_have_modules_of_one_name_each_its_own(folder: Folder) -> None:
    a, b = (
        folder(name, my_desk=f"import my_models\nWHO = '{name}'\n", my_models=f"WHO = '{name} too'\n") for name in "ab"
    )
    use(a)
    first = load("my_desk")
    use(b)
    second = load("my_desk")
    assert (first.WHO, second.WHO, second.my_models.WHO) == ("a", "b", "b too")
    assert home("my_desk") == b
    use(a)
    assert load("my_desk") is first
    assert sys.modules["my_models"] is first.my_models


def test_a_module_that_came_from_elsewhere_under_the_same_name_is_not_replaced(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = folder("elsewhere", my_desk="")
    monkeypatch.syspath_prepend(elsewhere)
    importlib.import_module("my_desk")
    use(folder("a", my_desk=""))
    with pytest.raises(NameTaken, match=elsewhere):
        load("my_desk")


def test_a_module_that_was_imported_before_from_the_same_folder_is_the_same(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    where = folder("a", my_desk="")
    monkeypatch.syspath_prepend(where)
    before = importlib.import_module("my_desk")
    use(where)
    assert load("my_desk") is before
