"""`mesh gc`: what is past its retention is shown, and removed with --yes."""

import asyncio

import pytest

from mesh.core.record import NewRecord
from mesh.wire.clock import SystemClock
from mesh.wire.sqlite import SqliteLog
from mesh.wiring import load_topology, topic_specs
from tests.cli.conftest import Cli

DAY_MS = 86_400_000
OLD_MS = 40 * DAY_MS


class OldClock(SystemClock):
    """Forty days ago."""

    def now_ms(self) -> int:
        return super().now_ms() - OLD_MS


@pytest.fixture
def old(project: Cli) -> Cli:
    """A project with outcomes and greetings of forty days ago."""

    async def fill() -> None:
        topology = load_topology(str(project.folder / "topics.yaml"))
        log = SqliteLog(project.folder / ".mesh" / "mesh.db", clock=OldClock())
        await log.start()
        await log.create_topics(topic_specs(topology))
        for topic in (topology.outcomes, topology.dead, "greetings"):
            await log.append([NewRecord(topic, b"k", b"{}", [])] * 3)
        await log.close()

    asyncio.run(fill())
    return project


def test_old_records_are_shown_and_removed_with_yes(old: Cli) -> None:
    planned = old("gc", "--json").rows
    assert [(row["topic"], row["records"], row["retention_ms"] // DAY_MS, row["removed"]) for row in planned] == [
        ("mesh.outcomes", 3, 30, False),
        ("greetings", 3, 7, False),
    ]
    shown = old("gc")
    assert (shown.code, shown.out.splitlines()[1].split()) == (0, ["mesh.outcomes", "3", "30", "d"])
    assert shown.err.splitlines()[-1] == "6 records would be removed; --yes removes them"
    done = old("gc", "--yes")
    assert done.out.splitlines()[-1].startswith("✓ 6 records removed")
    assert old("gc").err == "No record is past its retention.\n"


def test_topics_yaml_says_how_long(old: Cli) -> None:
    file = old.folder / "topics.yaml"
    text = file.read_text().replace(
        "  inbox: {partitions: 2}\n", "  inbox: {partitions: 2}\n  retention: {outcomes: forever}\n"
    )
    file.write_text(text.replace("word.heard], partitions: 2}", "word.heard], partitions: 2, retention: 60d}"))
    assert old("gc", "--json").rows == []
