"""Requests on real Kafka are sent again: killed on the way exactly the rest, and into another prefix."""

import json
import signal
import time
from pathlib import Path

import pytest

from tests.cli.commands.dead_letters.test_redrive import AGENTS, TOPICS, Shop
from tests.cli.conftest import Cli, until

pytestmark = pytest.mark.live


def topology(mark: str, name: str) -> str:
    text = TOPICS.replace("name: shop, prefix: mesh", f"name: {name}, prefix: {name}{mark}")
    text = text.replace(
        "  asks: {ingress: ask, id: id,", f"  asks-{name}{mark}: {{ingress: ask, id: id, order: key, key: id,"
    )
    return text.replace("  answers:", f"  answers-{name}{mark}:").replace("on: ask,", "on: ask, key: id,")


@pytest.fixture
def mark() -> str:
    return f"-{time.time_ns() % 10**8}"


@pytest.fixture
def shop(kafka_bootstrap: str, redis_url: str, tmp_path: Path, mark: str) -> Shop:
    folder = tmp_path / "shop"
    folder.mkdir()
    (folder / "topics.yaml").write_text(topology(mark, "shop"))
    (folder / "twin.yaml").write_text(topology(mark, "twin"))
    (folder / "shop.py").write_text(AGENTS)
    cli = Cli(None, folder, tmp_path)
    cli.environ |= {"MESH_LOG": f"kafka://{kafka_bootstrap}", "MESH_BOARD": redis_url}
    shop = Shop(cli)
    shop.mend()
    return shop


def test_requests_that_are_sent_again_on_kafka_come_once_each_also_after_a_kill(shop: Shop) -> None:
    cli, ids = shop.cli, [f"o-{n:02}" for n in range(10)]
    (cli.folder / "asks.jsonl").write_text("".join(json.dumps({"id": id, "n": 1}) + "\n" for id in ids))
    with cli.up("--create-topics"):
        cli("publish", "ask", "@asks.jsonl", "--wait")
        assert shop.answered == ids
        dry = cli("replay", "--resend", "--since", "1h")
        assert (dry.code, "10 requests would be sent; --yes does it" in dry.err) == (0, True), dry.err
        with cli.background("replay", "--resend", "--since", "1h", "--rate", "4/s", "--yes") as running:
            until(lambda: len(shop.answered) >= len(ids) + 3)
            running.signal(signal.SIGKILL)
            running.end()
        assert len(shop.answered) < 2 * len(ids)
        rest = cli("replay", "--resend", "--since", "1h", "--yes", "--json")
        assert rest.code == 0, rest.err
        until(lambda: len(shop.answered) >= 2 * len(ids))
        again = cli("replay", "--resend", "--since", "1h", "--yes")
        assert (again.code, again.out) == (0, "")
        assert "10 requests left out: a resend made them" in again.err
        assert cli("verify").code == 0
        assert shop.answered == sorted([*ids, *ids]), "each once more"


def test_requests_on_kafka_go_into_the_mesh_of_another_prefix(shop: Shop, mark: str) -> None:
    cli, twin = shop.cli, ("--topology", "twin.yaml")
    with cli.up("--create-topics"):
        cli("publish", "ask", '{"id": "o-1", "n": 1}', "--wait")
    with cli.up("--create-topics", *twin):
        done = cli("replay", "o-1", "--resend", "--to-topology", "twin.yaml", "--keep-ids", "--yes", "--json")
        assert done.code == 0, done.err
        (entry,) = done.rows
        assert (entry["way"], entry["topic"]) == ("resend", f"asks-twin{mark}")
        until(lambda: len(shop.answered) == 2)
        until(lambda: cli("run", "show", "o-1", *twin, "--json").code == 0)
        assert cli("run", "show", "o-1", *twin, "--json").rows[0]["run"] == entry["run"]
        assert cli("verify", *twin).code == 0
