"""Meshes that have run, for replays of their logs."""

import json
import shutil
import signal
from typing import Any

import pytest

from tests.cli.conftest import PROJECT, Cli

ODD = "ü ☃ 👩‍👩‍👧 \u202eabc\x1b[31mred\x07 'q\" \\"
"""A text with emoji, a change of direction, and control characters."""
LONG = "long " * 12_000


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


@pytest.fixture(scope="package")
def troubled(forker: Any, tmp_path_factory: pytest.TempPathFactory) -> Cli:
    """A folder in which a mesh has run that had all sorts of trouble. It is down now. Copy it before you change it.

    Runs, by subject: `old` (older topology), `ada`, `broken` (redriven), `cancelled`, `open` (paused and resumed),
    `large`, and `odd`.
    """
    home = tmp_path_factory.mktemp("troubled")
    shutil.copytree(PROJECT, home / "desk", ignore=shutil.ignore_patterns("__pycache__"))
    cli, quick = Cli(forker, home / "desk", home), {"MESH_DRAIN_TIMEOUT_MS": "50"}
    file = cli.folder / "topics.yaml"
    new = file.read_text()
    file.write_text(new.replace("deadline: 60s", "deadline: 70s"))
    with cli.up() as running:
        assert cli("publish", "hello", '{"name": "old"}', "--wait").code == 0
        running.signal(signal.SIGINT)
        running.end()
    file.write_text(new)
    with cli.up(env=quick) as running:
        assert cli("publish", "hello", '{"name": "ada"}', "--wait").code == 0
        assert cli("publish", "break.me", "{}", "--id", "broken", "--wait").code == 1
        assert cli("dead", "redrive", "--agent", "breaker", "--yes", "--wait").code == 1
        for name in ("cancelled", "open"):
            cli("publish", "nap.taken", '{"seconds": 60}', "--id", name)
        assert cli("run", "cancel", "cancelled").code == 0
        assert cli("run", "pause", "open").code == cli("run", "resume", "open").code == 0
        for name, word in (("large", LONG), ("odd", ODD)):
            done = cli("publish", "word.said", json.dumps({"word": word}), "--id", name, "--wait")
            assert done.code == 0, done.err
        running.signal(signal.SIGINT)
        running.end()
    return cli
