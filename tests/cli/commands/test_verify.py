"""`mesh verify`: a log that is well, logs that were tampered with, and what is shown of it."""

import asyncio
import shutil
import signal
import sqlite3
from collections.abc import Callable, Coroutine
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from mesh.adapters.ports import Log
from mesh.app.wiring import open_log
from mesh.core.protocol.codec import plain_headers
from mesh.core.protocol.record import NewRecord, Record, TopicPartition
from mesh.settings import Settings
from tests.cli.conftest import PROJECT, Cli

Tamper = Callable[[Log], Coroutine[Any, Any, None]]


@pytest.fixture(scope="module")
def lived(forker: Any, tmp_path_factory: pytest.TempPathFactory) -> Cli:
    """A folder in which a mesh has run: three greetings, a failure, a refusal."""
    home = tmp_path_factory.mktemp("lived")
    shutil.copytree(PROJECT, home / "desk", ignore=shutil.ignore_patterns("__pycache__"))
    cli = Cli(forker, home / "desk", home)
    with cli.up() as running:
        for name in ("ada", "bob", "eve"):
            assert cli("publish", "hello", f'{{"name": "{name}"}}', "--wait").code == 0
        assert cli("publish", "break.me", "{}", "--wait").code == 1
        assert cli("publish", "round.go", "{}", "--wait").code == 1
        running.signal(signal.SIGINT)  # so that it leaves checkpoints
        running.end()
    return cli


@pytest.fixture
def copy(lived: Cli, tmp_path: Path) -> Cli:
    """The same, to be spoilt."""
    shutil.copytree(lived.folder, tmp_path / "desk", ignore=shutil.ignore_patterns("*.wake", "__pycache__"))
    return lived.at(tmp_path / "desk")


def spoil(cli: Cli, tamper: Tamper) -> None:
    """Do something to the log of a mesh that is not up."""

    async def open_and_tamper() -> None:
        log = open_log(Settings(log=f"sqlite:{cli.folder / '.mesh/mesh.db'}"))
        await log.start()
        try:
            await tamper(log)
        finally:
            await log.close()

    asyncio.run(open_and_tamper())


async def records(log: Log, topic: str) -> list[Record]:
    bounds = await log.bounds(topic)
    reader = log.reader({TopicPartition(topic, n): b.start for n, b in bounds.items()})
    found: list[Record] = []
    while any(reader.position(TopicPartition(topic, n)) < b.end for n, b in bounds.items()):
        found += await reader.poll(records_max=1_000, wait_ms=100)
    await reader.close()
    return found


def again(topic: str, **headers: bytes) -> Tamper:
    """Append the first record of a topic once more, with other headers."""

    async def tamper(log: Log) -> None:
        first = (await records(log, topic))[0]
        merged = {**dict(plain_headers(first.headers)), **headers}
        await log.append([NewRecord(topic, first.key, first.value, tuple(merged.items()), first.partition)])

    return tamper


def test_a_log_that_is_well_is_said_to_be_so(lived: Cli) -> None:
    done = lived("verify")
    assert done.code == 0
    assert done.out.startswith("✓ 38 records, 5 runs: nothing diverges")
    assert "I6" in done.out
    assert "38 records read" in done.err


def test_as_json_it_says_what_was_looked_at(lived: Cli) -> None:
    (row,) = lived("verify", "--json").rows
    assert row["ok"] is True
    assert row["endings"] == {"completed": 3, "failed": 1, "stopped": 1}
    assert row["records"]["mesh.dead"] == 2
    assert row["violations"] == row["unchecked"] == {}
    assert row["checked"]["I6"] == 21
    assert row["records_per_s"] > 0


def test_one_run_is_checked_by_itself(lived: Cli) -> None:
    done = lived("verify", "--run", "ada")
    assert done.code == 0
    assert done.out.startswith("✓ 7 records, run ")
    assert lived("verify", "--run", "unknown").code == 3


def test_copies_are_no_divergence(copy: Cli) -> None:
    for topic in ("mesh.tasks.greeter", "mesh.outcomes", "mesh.dead", "greetings"):
        spoil(copy, again(topic))
    (row,) = copy("verify", "--json").rows
    assert row["ok"] is True
    assert row["copies"] == 4


@pytest.mark.parametrize(
    ("tamper", "invariant"),
    [
        (again("mesh.outcomes", ce_id=b"forged"), "I2"),
        (again("mesh.tasks.greeter", ce_subject=b"x"), "I3"),
        (again("mesh.tasks.keeper", ce_id=b"forged:1", ce_meshdepth=b"9"), "I4"),
        (again("greetings", ce_id=b"forged"), "I6"),
        (again("mesh.dead", **{"mesh-dlq-id": b"forged", "mesh-dlq-reason": b"because"}), "I8"),
    ],
)
def test_a_record_that_follows_from_no_decision_is_found(copy: Cli, tamper: Tamper, invariant: str) -> None:
    spoil(copy, tamper)
    done = copy("verify")
    assert done.code == 1
    assert done.out.startswith("✗ 39 records, 5 runs: ")
    assert f"\n{invariant}  " in done.out
    rows = copy("verify", "--json").rows
    assert invariant in rows[-1]["violations"]
    assert rows[0]["where"]


def test_a_divergence_is_shown_with_both_sides(copy: Cli) -> None:
    with closing(sqlite3.connect(copy.folder / ".mesh/mesh.db")) as file, file:
        rows = file.execute("SELECT id, bodies FROM batches").fetchall()
        (batch,) = [(id, bodies) for id, bodies in rows if b'{"name":"eve"}' in bodies and b"specversion" not in bodies]
        spoilt = batch[1].replace(b'"eve"', b'"Eve"')
        file.execute("UPDATE batches SET bodies = ? WHERE id = ?", (spoilt, batch[0]))
    done = copy("verify")
    assert done.code == 1
    assert "✗ 38 records, 5 runs: I6 1" in done.out
    assert "I6  " in done.out
    assert '  value.name\n    expected "eve"\n    got      "Eve"\n' in done.out
    first, _ = copy("verify", "--json").rows
    assert first["differences"] == [{"place": "value.name", "expected": '"eve"', "got": '"Eve"'}]
    assert first["published"].startswith("mesh.tasks.keeper:")
    assert copy("verify", "--run", "eve").code == 1
    assert copy("verify", "--run", "ada").code == 0


def test_a_log_whose_head_is_gone_is_checked_as_far_as_it_goes(copy: Cli) -> None:
    async def trim(log: Log) -> None:
        for number, bounds in (await log.bounds("mesh.inbox")).items():
            await log.trim(TopicPartition("mesh.inbox", number), bounds.end - 2)

    spoil(copy, trim)
    done = copy("verify")
    assert done.code == 0
    assert "not checked: " in done.err
    (row,) = copy("verify", "--json").rows
    assert row["unchecked"]["runs that began before the head of the inbox"]


def test_an_inbox_that_was_emptied_up_to_its_checkpoint_is_no_divergence(copy: Cli) -> None:
    async def empty(log: Log) -> None:
        for number, bounds in (await log.bounds("mesh.inbox")).items():
            await log.trim(TopicPartition("mesh.inbox", number), bounds.end)

    spoil(copy, empty)
    done = copy("verify")
    assert (done.code, "nothing diverges" in done.out) == (0, True), done.out
    assert "checkpoints, older than the inbox" in done.err


def test_runs_of_an_older_topics_yaml_are_decided_under_it(copy: Cli) -> None:
    file = copy.folder / "topics.yaml"
    file.write_text(
        file.read_text().replace("deadline: 60s", "deadline: 70s").replace("visits_max: 3", "visits_max: 2")
    )
    with copy.up():
        assert copy("publish", "round.go", '{"lap": 1}', "--wait").code == 1
        assert copy("publish", "hello", '{"name": "zoe"}', "--wait").code == 0
    done = copy("verify", "--json")
    assert done.code == 0, done.out
    assert done.rows[-1]["topologies"] == 2
    assert done.rows[-1]["runs"] == 7


def test_it_may_be_asked_while_the_mesh_is_up(copy: Cli) -> None:
    with copy.up():
        for n in range(20):
            copy("publish", "hello", f'{{"name": "n{n}"}}')
            assert copy("verify", "-q").code == 0


def test_without_a_mesh_there_is_nothing_to_verify(cli: Cli) -> None:
    assert cli("verify").code in (2, 3)


def test_the_checkpoints_that_stand_are_compared_with_the_inbox(lived: Cli) -> None:
    (row,) = lived("verify", "--json").rows
    assert row["checked"].get("I13", 0) > 0, row


def test_a_checkpoint_that_is_gone_is_reported(copy: Cli) -> None:
    async def trim(log: Log) -> None:
        for number, bounds in (await log.bounds("mesh.checkpoints")).items():
            await log.trim(TopicPartition("mesh.checkpoints", number), bounds.end)

    spoil(copy, trim)
    done = copy("verify")
    assert done.code == 1
    assert "I13  the checkpoint that stands cannot be read: its records 0 to" in done.out
