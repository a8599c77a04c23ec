"""The laws of the house hold here, and each law that is broken on purpose in a small tree is found."""

from pathlib import Path

import pytest

from tests.house import FILE_LINES_MAX, FUNCTION_LINES_MAX, PUBLIC_NAMES_MAX, offences
from tests.house_rooms import MAY_IMPORT, ROOM_FILES_MAX

ROOT = Path(__file__).parent.parent

CLEAN = {
    "mesh/__init__.py": (
        '"""Public names."""\n\nfrom mesh.core.protocol.event import Event\n\n__all__ = ["Event"]\n'
        "from mesh.client import x\n"
    ),
    "mesh/settings.py": "import os\n\nimport platformdirs\n\nfrom mesh.core.protocol import event\n",
    "mesh/app/wiring.py": "from mesh.settings import load\nfrom mesh.adapters.sqlite import log\n",
    "mesh/client.py": "from mesh.app.wiring import open_log\n",
    "mesh/cli/__init__.py": "import typer\nfrom mesh.services.intake import Intake\n",
    "mesh/core/protocol/event.py": (
        "import re\nfrom datetime import datetime\nfrom sys import intern\n\nimport orjson\n\n\n"
        "def parsed(data):\n    return orjson.loads(data), datetime.fromisoformat('2026-11-20')\n"
    ),
    "mesh/core/state/lazy_table.py": '"""Declarations only."""\n\nX = 1\n',
    "mesh/core/topology/yaml_nodes.py": "import yaml\n\n\ndef load(text):\n    return yaml.safe_load(text)\n",
    "mesh/adapters/__init__.py": "def exempt():\n    return 1\n",
    "mesh/adapters/ports.py": (
        "from typing import Protocol\n\n\nclass Log(Protocol):\n    async def append(self) -> int:\n"
        '        """Only said."""\n        ...\n'
    ),
    "mesh/adapters/sqlite/log.py": (
        "import sqlite3\nimport time\n\nfrom mesh.core.protocol.event import parsed\n\n\n"
        "def now():\n    return time.time()\n"
    ),
    "mesh/adapters/kafka/log.py": "import aiokafka\n\n\ndef start():\n    return aiokafka.AIOKafkaConsumer()\n",
    "mesh/adapters/redis/board.py": "import redis.asyncio\n\n\ndef start():\n    return redis\n",
    "mesh/services/intake.py": (
        "import asyncio\n\nfrom mesh.adapters.ports import Log\n\n\nasync def run(stop):\n"
        "    async with asyncio.TaskGroup() as group:\n        group.create_task(stop())\n"
        "    task = asyncio.create_task(stop())\n    try:\n        await task\n"
        "    except Exception as error:\n        raise RuntimeError from error\n"
        "    except ValueError:\n        pass\n"
    ),
    "mesh/services/gateway/app.py": (
        "import fastapi\n\nfrom mesh.services.gateway import pages\n\n\ndef app():\n    return fastapi, pages\n"
    ),
    "mesh/services/worker.py": "X = 1\n",
    "mesh/operations/replay/recording.py": (
        "from mesh.adapters.ports import ReadLog\n\n\nasync def read(log: ReadLog, lines: list[str]) -> str:\n"
        "    lines.append(log.url)\n    await log.bounds('t')\n    return ', '.join(lines)\n"
    ),
    "agents/__init__.py": "",
    "agents/orders/events.py": "from mesh import Event\n",
    "agents/orders/fraud.py": (
        "import math\n\nimport mesh\nfrom agents.orders.events import Event\nfrom mesh import Event as E\n"
    ),
    "agents/issues/events.py": "",
    "tests/core/protocol/test_event.py": "",
    "tests/core/topology/test_yaml_nodes.py": "",
    "tests/adapters/sqlite/test_log.py": "",
    "tests/live/test_kafka_log.py": "",
    "tests/adapters/redis/test_board.py": "",
    "tests/services/test_intake.py": "",
    "tests/services/gateway/test_app.py": "",
    "scripts/kafka": "#!/bin/sh\n",
    "bench/runs.py": "import time\n",
}

LONG_FUNCTION = "def long():\n" + '    """Docstrings do\n    not count."""\n' + "    x = 1\n" * FUNCTION_LINES_MAX
NAMES = ", ".join(repr(f"n{n}") for n in range(PUBLIC_NAMES_MAX + 1))


REPLAY = "mesh/operations/replay/recording.py"


def at_end(source: str) -> str:
    """Appended to the clean file; the offence is on its last line."""
    return f"+{source}"


BREACHES = [
    ("direction", "mesh/core/protocol/event.py", at_end("from mesh.core.topology.model import Topology\n")),
    ("direction", "mesh/core/protocol/event.py", at_end("from mesh.core import topology\n")),
    ("direction", "mesh/core/errors.py", "from mesh.core.protocol.event import Event\n"),
    ("direction", "mesh/runtime/loop.py", "from mesh.services import intake\n"),
    ("direction", "mesh/operations/runs.py", "from mesh.app.wiring import open_log\n"),
    ("one stem", "mesh/core/run/event.py", "X = 1\n"),
    ("one class name", "mesh/services/intake.py", at_end("class Log: ...\n")),
    ("direction", "mesh/core/protocol/event.py", at_end("from mesh.adapters.ports import Log\n")),
    ("direction", "mesh/core/protocol/event.py", at_end("import mesh.services.intake\n")),
    ("direction", "mesh/core/protocol/event.py", at_end("from mesh import settings\n")),
    ("direction", "mesh/core/protocol/event.py", at_end("from ...adapters import ports\n")),
    ("direction", "mesh/core/protocol/event.py", at_end("def late():\n    from mesh.adapters.ports import Log\n")),
    ("direction", "mesh/adapters/redis/board.py", at_end("from mesh.services.intake import run\n")),
    ("direction", "mesh/adapters/redis/board.py", at_end("from mesh.settings import load\n")),
    ("direction", "mesh/adapters/redis/board.py", at_end("from mesh import context\n")),
    ("direction", "mesh/services/intake.py", at_end("from mesh.app.wiring import open_log\n")),
    ("direction", "mesh/services/intake.py", at_end("from mesh.cli import main\n")),
    ("direction", "mesh/services/intake.py", at_end("import agents.orders.events\n")),
    ("direction", "mesh/settings.py", at_end("from mesh.adapters import ports\n")),
    ("direction", "mesh/client.py", at_end("from mesh.services import intake\n")),
    ("processes apart", "mesh/services/intake.py", at_end("from mesh.services.worker import X\n")),
    ("processes apart", "mesh/services/intake.py", at_end("from mesh.services import worker\n")),
    ("processes apart", "mesh/services/intake.py", at_end("from . import worker\n")),
    ("processes apart", "mesh/adapters/redis/board.py", at_end("from mesh.adapters.sqlite import log\n")),
    ("rooms", "mesh/extra.py", "X = 1\n"),
    ("rooms", "mesh/plugins/one.py", "X = 1\n"),
    ("agents apart", "agents/orders/fraud.py", at_end("from mesh.core.protocol.event import Event\n")),
    ("agents apart", "agents/orders/fraud.py", at_end("import mesh.adapters\n")),
    ("agents apart", "agents/orders/fraud.py", at_end("from mesh import settings\n")),
    ("agents apart", "agents/orders/fraud.py", at_end("from agents.issues.events import Event\n")),
    ("agents apart", "agents/orders/fraud.py", at_end("from agents.orders.pricing import price\n")),
    ("agents apart", "agents/orders/fraud.py", at_end("from .pricing import price\n")),
    ("one home", "mesh/services/intake.py", at_end("import aiokafka\n")),
    ("one home", "mesh/services/intake.py", at_end("from redis.asyncio import Redis\n")),
    ("one home", "mesh/adapters/redis/board.py", at_end("import sqlite3\n")),
    ("one home", "mesh/adapters/redis/board.py", at_end("from opentelemetry import trace\n")),
    ("one home", "mesh/services/worker.py", at_end("import faust\n")),
    ("one home", "mesh/services/worker.py", at_end("import fastapi\n")),
    ("one home", "mesh/client.py", at_end("import typer\n")),
    ("one home", "mesh/client.py", at_end("from rich.console import Console\n")),
    ("one home", "mesh/core/protocol/event.py", at_end("import yaml\n")),
    ("one home", "mesh/adapters/redis/board.py", at_end("import requests\n")),
    ("one home", "agents/orders/fraud.py", at_end("import requests\n")),
    ("pure core", "mesh/core/protocol/event.py", at_end("import time\n")),
    ("pure core", "mesh/core/protocol/event.py", at_end("import random\n")),
    ("pure core", "mesh/core/protocol/event.py", at_end("import sys\n")),
    ("pure core", "mesh/core/protocol/event.py", at_end("from sys import argv\n")),
    ("pure core", "mesh/core/protocol/event.py", at_end("from uuid import uuid4\n")),
    ("pure core", "mesh/core/protocol/event.py", at_end("import os.path\n")),
    ("pure core", "mesh/core/protocol/event.py", at_end("import secrets\n")),
    ("pure core", "mesh/core/protocol/event.py", at_end("import logging\n")),
    ("pure core", "mesh/core/protocol/event.py", at_end("import asyncio\n")),
    ("pure core", "mesh/core/protocol/event.py", at_end("async def wait(): ...\n")),
    ("pure core", "mesh/core/protocol/event.py", at_end("x = datetime.now()\n")),
    ("pure core", "mesh/core/protocol/event.py", at_end("x = datetime.utcnow()\n")),
    ("pure core", "mesh/core/protocol/event.py", at_end("x = open('f')\n")),
    ("pure core", "mesh/core/protocol/event.py", at_end("x = hash('text')\n")),
    ("pure core", "mesh/core/protocol/event.py", at_end("x = eval('1')\n")),
    ("replay reads", REPLAY, at_end("from mesh.adapters.ports import Log\n")),
    ("replay reads", REPLAY, at_end("from mesh.adapters import ports\nx = ports.Log\n")),
    ("replay reads", REPLAY, at_end("def f(log: 'Log'): ...\n")),
    ("replay reads", REPLAY, at_end("async def f(log): await log.append([])\n")),
    ("replay reads", REPLAY, at_end("async def f(other): await other.append([])\n")),
    ("replay reads", REPLAY, at_end("def f(self): return self._log.append\n")),
    ("replay reads", REPLAY, at_end("async def f(log): await log.join('g', [], None)\n")),
    ("replay reads", REPLAY, at_end("def f(member): return member.commit({})\n")),
    ("replay reads", REPLAY, at_end("def f(log): return log.commit_idle('g', {})\n")),
    ("replay reads", REPLAY, at_end("def f(log): return log.create_topics([])\n")),
    ("replay reads", REPLAY, at_end("def f(log): return log.trim(('t', 0), 1)\n")),
    ("replay reads", REPLAY, at_end("def f(log): return getattr(log, 'append')\n")),
    ("replay reads", REPLAY, at_end("from mesh.runtime.loop import append_all\n")),
    ("replay reads", REPLAY, at_end("from mesh.runtime.topology_store import TopologyStore\n")),
    ("replay reads", "mesh/core/replay/steps.py", "def f(log): return log.trim\n"),
    ("direction", REPLAY, at_end("from mesh.adapters.sqlite import log\n")),
    ("file size", "mesh/core/state/lazy_table.py", "X = 1\n" * (FILE_LINES_MAX + 1)),
    ("file size", "tests/core/protocol/test_event.py", "X = 1\n" * (FILE_LINES_MAX + 1)),
    ("file size", "mesh/adapters/redis/board.lua", "x = 1\n" * (FILE_LINES_MAX + 1)),
    ("file size", "scripts/kafka", "x=1\n" * (FILE_LINES_MAX + 1)),
    ("function size", "mesh/services/intake.py", LONG_FUNCTION),
    ("function size", "tests/core/protocol/test_event.py", LONG_FUNCTION),
    ("vague name", "mesh/core/utils.py", ""),
    ("vague name", "mesh/core/kafka_helpers.py", ""),
    ("vague name", "mesh/adapters/common/log.py", ""),
    ("vague name", "tests/misc.py", ""),
    ("vague name", "agents/base.py", ""),
    ("vague name", "bench/manager.py", ""),
    ("nothing swallowed", "mesh/services/intake.py", at_end("try:\n    x = 1\nexcept:\n    raise\n")),
    ("nothing swallowed", "mesh/services/intake.py", at_end("try:\n    x = 1\nexcept Exception:\n    pass\n")),
    (
        "nothing swallowed",
        "mesh/services/intake.py",
        at_end("try:\n    x = 1\nexcept (OSError, Exception):\n    ...\n"),
    ),
    (
        "nothing swallowed",
        "mesh/services/intake.py",
        at_end("def f():\n  try:\n    g()\n  except BaseException:\n    return None\n"),
    ),
    ("nothing swallowed", "mesh/services/intake.py", at_end("with contextlib.suppress(Exception):\n    x = 1\n")),
    ("nothing swallowed", "agents/orders/fraud.py", at_end("try:\n    x = 1\nexcept Exception:\n    pass\n")),
    ("no task dropped", "mesh/services/intake.py", at_end("def f():\n    asyncio.create_task(run(1))\n")),
    ("no task dropped", "mesh/services/intake.py", at_end("def f():\n    asyncio.ensure_future(run(1))\n")),
    ("no task dropped", "mesh/services/intake.py", at_end("def f(loop):\n    loop.create_task(run(1))\n")),
    ("no task dropped", "mesh/services/intake.py", at_end("def f(loop):\n    loop.run_in_executor(None, run)\n")),
    ("few names", "mesh/__init__.py", f"__all__ = [{NAMES}, 'Event']\n"),
    ("few names", "mesh/__init__.py", "X = 1\n"),
    ("tests beside", "mesh/core/run/backoff.py", "def delay():\n    return 1\n"),
    ("tests beside", "mesh/services/monitor.py", "def run():\n    return 1\n"),
    ("tests beside", "mesh/adapters/kafka/member.py", "class Member:\n    def poll(self):\n        return 1\n"),
]


def build(root: Path, files: dict[str, str]) -> None:
    for place, source in files.items():
        path = root / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source, "utf-8")


def test_every_law_holds_in_this_tree() -> None:
    found = offences(ROOT)
    assert not found, "\n" + "\n".join(map(str, found))


def test_a_clean_tree_has_no_offences(tmp_path: Path) -> None:
    build(tmp_path, CLEAN)
    assert offences(tmp_path) == []


def test_a_place_stands_only_on_places_before_it() -> None:
    places = list(MAY_IMPORT)
    for n, place in enumerate(places):
        for one in MAY_IMPORT[place]:
            later = [other for other in places[n + 1 :] if other == one or other.startswith(f"{one}.")]
            assert one == "mesh" or not later, f"{place} may import {one}, and {later} come later"


def test_a_room_with_too_many_files_is_found(tmp_path: Path) -> None:
    many = {f"mesh/core/protocol/part{n}.py": "X = 1\n" for n in range(ROOM_FILES_MAX)}
    build(tmp_path, {**CLEAN, **many})
    (found,) = offences(tmp_path)
    assert (found.law, found.what) == ("room size", f"mesh/core/protocol has more than {ROOM_FILES_MAX} files")


@pytest.mark.parametrize(("law", "place", "source"), BREACHES)
def test_a_broken_law_is_found_where_it_is_broken(tmp_path: Path, law: str, place: str, source: str) -> None:
    if source.startswith("+"):
        source = CLEAN[place] + source.removeprefix("+")
    build(tmp_path, {**CLEAN, place: source})
    found = offences(tmp_path)
    assert (law, place) in {(offence.law, offence.path) for offence in found}
    for offence in found:
        assert offence.path == place, "nothing else is blamed"
        assert offence.what
        assert offence.remedy
        assert str(offence).startswith(f"{place}:{offence.line}: {offence.law}: ")
        assert 1 <= offence.line <= max(1, source.count("\n") + 1)


def test_the_line_of_a_breach_is_its_own(tmp_path: Path) -> None:
    source = "import re\n\n\ndef f():\n    import time\n\n    return time.time(), re\n"
    build(tmp_path, {**CLEAN, "mesh/core/protocol/event.py": source})
    assert [str(offence) for offence in offences(tmp_path)] == [
        "mesh/core/protocol/event.py:5: pure core: core imports time: hand its answer in as a value"
    ]


def test_a_module_tested_only_against_a_real_server_has_its_test_there(tmp_path: Path) -> None:
    build(tmp_path, {name: text for name, text in CLEAN.items() if name != "tests/live/test_kafka_log.py"})
    (found,) = offences(tmp_path)
    assert found.what == "it has no test file tests/adapters/kafka/test_log.py"
    assert "tests/live/test_kafka_log.py" in found.remedy
