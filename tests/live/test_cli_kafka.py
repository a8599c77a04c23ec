"""The command line on real Kafka and Redis: the same project, the same answers."""

import signal
from pathlib import Path

import pytest

from mesh.app.wiring import load_topology, topic_specs
from tests.cli.conftest import Cli
from tests.live.desk_on_kafka import desk_on_kafka

pytestmark = pytest.mark.live


@pytest.fixture
def project(kafka_bootstrap: str, redis_url: str, tmp_path: Path) -> Cli:
    """A folder whose mesh has topics of its own on the shared broker; none of them is there yet."""
    return desk_on_kafka(tmp_path, kafka_bootstrap, redis_url)


def test_topics_that_are_missing_on_kafka_are_reported_at_once_and_made_when_asked(project: Cli) -> None:
    done = project("up")
    assert done.code == 1
    count = len(topic_specs(load_topology(str(project.folder / "topics.yaml"))))
    assert f"{count} problems" in done.err
    assert done.err.count(" is missing") == count
    assert "`mesh topics create` makes the missing ones" in done.err
    assert project("topics", "create").err.startswith(f"{count} created, 0 there already")
    assert project("topics", "check").code == 0


def test_a_mesh_of_several_processes_runs_on_kafka_and_redis(project: Cli) -> None:
    with project.up("--workers", "2", "--create-topics") as running:
        assert len(running.ready["pids"]) == 3
        done = project("publish", "hello", '{"name": "ada"}', "--follow")
        assert done.code == 0, done.err
        assert "✓ ada  hello  completed" in done.out
        assert project("publish", "round.go", "{}", "--wait", "--json").rows[0]["ending"] == "stopped"
        assert project("board", "get", "greetings/ada", "--json").rows[0]["value"] == {"name": "ada"}
        running.signal(signal.SIGTERM)
        assert running.end().code == 143
    (row, other) = project("run", "list", "--json").rows
    assert {row["state"], other["state"]} == {"completed", "stopped"}
    assert project("run", "show", "ada").out.startswith("✓ ada  hello  completed")
    assert {row["agent"]: row["lag"] for row in project("agents", "--json").rows}["greeter"] == 0
    (letter,) = project("dead", "list", "--json").rows
    assert letter["reason"] == "visits"
