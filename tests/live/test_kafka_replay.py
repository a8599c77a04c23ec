"""Each mode of a replay on runs that real Kafka and Redis recorded, and README's story there.

Redis cannot be reached while they are replayed: what the board held is read from the log.
"""

import re
import shutil
import signal
import socket
import time
from pathlib import Path

import pytest

from bench.mesh_processes import private_topology
from tests.cli.conftest import Cli, forker
from tests.live.desk_on_kafka import desk_on_kafka
from tests.story import ROOT, difference, play, story

pytestmark = pytest.mark.live
__all__ = ["forker"]

NAMES = ("ada", "bob", "eve")
COUNTING = """
from desk import Greeted, GreetingKept, Hello
from mesh import Context, agent


@agent
async def greet(hello: Hello, context: Context) -> list[Greeted | GreetingKept]:
    count = await context.board.add("greeted")
    return [Greeted(text=f"good day, {hello.name}, number {count.value}"), GreetingKept(name=hello.name)]


async def greet_by_two(hello: Hello, context: Context) -> list[Greeted | GreetingKept]:
    count = await context.board.add("greeted", 1 + (hello.name == "bob"))
    return [Greeted(text=f"good day, {hello.name}, number {count.value}"), GreetingKept(name=hello.name)]
"""


@pytest.fixture(scope="module")
def recorded(
    forker: socket.socket, kafka_bootstrap: str, redis_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Cli:
    """A mesh that has counted three greetings on the board and broken something. It is down now, and Redis gone."""
    cli = desk_on_kafka(tmp_path_factory.mktemp("recorded"), kafka_bootstrap, redis_url, forker)
    (cli.folder / "counting.py").write_text(COUNTING)
    file = cli.folder / "topics.yaml"
    file.write_text(file.read_text().replace('"desk:greet"', '"counting:greet"'))
    with cli.up("--create-topics") as running:
        for name in NAMES:
            assert cli("publish", "hello", f'{{"name": "{name}"}}', "--wait").code == 0
        assert cli("publish", "break.me", "{}", "--id", "broken", "--wait").code == 1
        running.signal(signal.SIGINT)
        running.end()
    cli.environ["MESH_BOARD"] = "redis://127.0.0.1:1"
    return cli


def test_a_run_is_found_printed_and_stepped_through(recorded: Cli) -> None:
    (row,) = recorded("run", "list", "--agent", "keeper", "--where", 'name == "bob"', "--json").rows
    assert row["subject"] == "bob"
    assert len(list((recorded.folder.parent / "data" / "mesh" / "runs").glob("*.db"))) == 1
    read = recorded("topics", "read", "inbox", "--run", "bob")
    assert [line.split()[2] for line in read.out.splitlines()] == ["requested", "succeeded", "succeeded"]
    printed = recorded("replay", "bob")
    assert (printed.code, printed.err) == (0, "")
    assert "3 steps in the order of" in printed.out
    stepped = recorded("replay", "bob", "--break", 'agent == "greeter"')
    assert stepped.out.count("● break") == 1
    assert "number 2" in recorded("replay", "bob", "--step", "-v").out
    failed = recorded("replay", "broken")
    assert "attempt 2 of 2, none is left" in failed.out


def test_recorded_runs_are_checked_and_decided_under_other_limits(recorded: Cli) -> None:
    for words in (["bob"], [], ["--since", "1h"]):
        checked = recorded("replay", *words, "--check")
        assert checked.code == 0, checked
        assert "nothing diverges" in checked.out
    one = recorded("replay", "bob", "--limit", "depth_max=1")
    assert (one.code, "refused  depth: greeter > keeper is 2 hops deep, at most 1" in one.out) == (1, True), one
    window = recorded("replay", "--since", "1h", "--limit", "depth_max=1", "--json").rows[0]
    assert (window["runs"], window["different"]) == (4, 3)
    same = recorded("replay", "--with", str(recorded.folder / "topics.yaml"))
    assert (same.code, "4 end the same, 0 differently" in same.out) == (0, True), same


def test_the_sandbox_has_the_board_as_it_stood(recorded: Cli) -> None:
    for name in NAMES:
        done = recorded("replay", name, "--run")
        assert (done.code, "✓ the same: outcome and the answers of 2 tasks" in done.out) == (0, True), done
    (edited,) = recorded("replay", "bob", "--run", "--set", "name=zoe", "--json").rows
    texts = {"recorded": '"good day, bob, number 2"', "now": '"good day, zoe, number 2"'}
    assert edited["outcome"] == [{"path": "greeted.text", **texts}]
    assert recorded("replay", "broken", "--run").code == 0


def test_an_agent_is_given_its_recorded_tasks_again(recorded: Cli) -> None:
    done = recorded("replay", "--agent", "greeter", "--since", "1h")
    assert (done.code, "same      3  the same answer" in done.out) == (0, True), done
    other = recorded("replay", "--agent", "greeter=counting:greet_by_two", "--json").rows
    assert [row["input"]["data"]["name"] for row in other[:-1]] == ["bob"]
    assert (other[-1]["same"], other[-1]["different"]) == (2, 1)


def test_an_exported_run_is_a_test_and_takes_every_mode(recorded: Cli) -> None:
    (recorded.folder / "bob.jsonl").write_text(recorded("run", "export", "bob").out)
    tested = recorded("test", "bob.jsonl")
    assert (tested.code, tested.out) == (0, "✓ bob.jsonl  bob  hello\n"), tested
    assert recorded("replay", "bob.jsonl", "--json").rows[1:] == recorded("replay", "bob", "--json").rows[1:]
    for words in (["--check"], ["--run"], ["--agent", "keeper"], ["--with", "topics.yaml"]):
        done = recorded("replay", "bob.jsonl", *words)
        assert (done.code, "error" in done.err) == (0, False), (words, done)
    saved = recorded("replay", "bob", "--run", "--agent", "greeter=counting:greet_by_two", "--save", "three.jsonl")
    assert saved.code == 1
    assert recorded("test", "three.jsonl").code == 1
    assert "number 3" in recorded("replay", "three.jsonl", "-v").out


def test_the_story_of_the_readme_goes_as_told(kafka_bootstrap: str, redis_url: str, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "agents", tmp_path / "agents", ignore=shutil.ignore_patterns("__pycache__"))
    private_topology(ROOT / "topics.yaml", tmp_path, f"-{time.time_ns() % 10**8}")
    told = story()
    assert re.match(r"export MESH_LOG=sqlite:\S+$", told[0].command)
    commands = ["mesh topics create", *(each.command for each in told[1:])]
    outputs = play(commands, tmp_path, {"MESH_LOG": f"kafka://{kafka_bootstrap}", "MESH_BOARD": redis_url})
    assert [text for text in map(difference, told[1:], outputs[1:]) if text] == []
