"""A mesh that has run, for replays of its log."""

import shutil
import signal
from typing import Any

import pytest

from tests.cli.conftest import PROJECT, Cli


@pytest.fixture(scope="package")
def lived(forker: Any, tmp_path_factory: pytest.TempPathFactory) -> Cli:
    """A folder in which a mesh has run: two greetings, a failure, a refusal. It is down now."""
    home = tmp_path_factory.mktemp("lived")
    shutil.copytree(PROJECT, home / "desk", ignore=shutil.ignore_patterns("__pycache__"))
    cli = Cli(forker, home / "desk", home)
    with cli.up() as running:
        for name in ("ada", "bob"):
            assert cli("publish", "hello", f'{{"name": "{name}"}}', "--wait").code == 0
        assert cli("publish", "break.me", "{}", "--id", "broken", "--wait").code == 1
        assert cli("publish", "round.go", "{}", "--id", "round", "--wait").code == 1
        running.signal(signal.SIGINT)
        running.end()
    return cli
