"""`mesh gc`: what is past its retention is shown, and removed with --yes."""

import asyncio

import pytest

from mesh import Mesh
from mesh.adapters.clock import SystemClock
from mesh.adapters.sqlite import SqliteLog
from mesh.app.process import Process, running
from mesh.app.wiring import load_agents, load_topology, open_board, topic_specs
from mesh.core.protocol.record import NewRecord, TopicPartition
from mesh.settings import Settings
from tests.cli.conftest import DEADLINE_S, Cli, until

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


async def forty_days_ago(project: Cli, payload: str) -> None:
    """Run one `hello` to its end."""
    file = project.folder / ".mesh" / "mesh.db"
    topology = load_topology(str(project.folder / "topics.yaml"))
    settings = Settings(log=f"sqlite:{file}", drain_timeout_ms=100)
    log = SqliteLog(file, clock=OldClock())
    await log.start()
    board = open_board(settings, topology.prefix, beside=log)
    await board.start()
    client = Mesh(log, topology)
    process = Process(log, topology, settings, agents=load_agents(topology), board=board)
    async with running(process):
        run = await client.publish("hello", payload.encode())
        assert (await run.outcome(timeout_s=DEADLINE_S)).ending == "completed"
    await client.close()
    await board.close()
    await log.close()


def remove_all(project: Cli) -> None:
    """Remove every record of the inbox and of the outcomes, as retention does."""

    async def trim() -> None:
        topology = load_topology(str(project.folder / "topics.yaml"))
        log = SqliteLog(project.folder / ".mesh" / "mesh.db")
        await log.start()
        for topic in (topology.inbox, topology.outcomes):
            for number, bounds in (await log.bounds(topic)).items():
                await log.trim(TopicPartition(topic, number), bounds.end)
        await log.close()

    asyncio.run(trim())


def test_an_event_that_comes_again_after_its_run_was_removed_is_answered(project: Cli) -> None:
    hello = ("hello", '{"name": "ann"}')
    line = project.folder / "again.jsonl"
    line.write_text('{"name": "ann"}\n')
    asyncio.run(forty_days_ago(project, '{"name": "ann"}'))
    with project.up():
        assert project("gc", "--yes").code == 0
        for way in ("--wait", "--follow"):
            done = project("publish", *hello, way)
            assert (done.code, "duplicate_request: request 'ann' came again" in done.err) == (5, True), done
        done = project("publish", "hello", "@again.jsonl", "--wait", "--timeout", "20s")
        assert (done.code, "line 1: duplicate_request: request 'ann' came again" in done.err) == (1, True), done
        assert project("run", "list", "--json").rows == []
        assert "its records are no longer kept" in project("run", "show", "ann").out
        shown = project("run", "show", "ann", "--json").rows[0]
        assert (shown["state"], shown["type"], shown["tasks"]) == ("completed", "hello", [])
        assert project("verify").code == 0


def test_a_paused_run_that_is_older_than_the_log_can_be_listed_shown_and_resumed(project: Cli) -> None:
    with project.up(env={"MESH_DRAIN_TIMEOUT_MS": "100"}) as mesh:
        run = project("publish", "nap.taken", "{}", "--json").rows[0]["run"]
        until(lambda: project("run", "show", run, "--json").rows[0]["tasks"])
        assert project("run", "pause", run).code == 0
        mesh.process.terminate()
        mesh.process.wait(DEADLINE_S)  # it writes its checkpoints
    remove_all(project)
    (row,) = project("run", "list", "--json").rows
    assert (row["run"], row["type"], row["state"], row["paused"]) == (run, "nap.taken", "open", True)
    shown = project("run", "show", run[:8])
    assert (shown.code, "napper" in shown.out, "paused" in shown.out) == (0, True, True), shown
    with project.up():
        assert project("run", "resume", "--all", "--yes").code == 0
        until(lambda: not project("run", "list", "--json").rows[0]["paused"])
        assert project("run", "cancel", run).code == 0
        assert project("verify").code == 0
