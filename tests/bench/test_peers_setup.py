"""The environment of the peers is made by one command, and its absence says which."""

import pytest

from bench.mesh_processes import ROOT
from bench.peers import setup


def test_without_the_environment_the_command_that_makes_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(setup, "PYTHON", ROOT / ".peers" / "nowhere" / "python")
    with pytest.raises(setup.NotMade, match=r"python -m bench\.peers\.setup"):
        setup.python()


def test_the_environment_is_ignored_by_git_and_no_dependency_of_the_project() -> None:
    assert f"{setup.FOLDER.name}/" in (ROOT / ".gitignore").read_text().splitlines()
    project = (ROOT / "pyproject.toml").read_text()
    for library in ("faststream", "dbos", "restate"):
        assert library not in project


def test_restate_is_pinned() -> None:
    assert setup.RESTATE_PACKAGE.rpartition("@")[2].count(".") == 2
