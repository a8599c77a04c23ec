"""Redrives on real Kafka: runs go on, and a redrive that is killed sends exactly the rest."""

import json
import signal
import time
from pathlib import Path

import pytest

from tests.cli.commands.dead_letters.test_redrive import AGENTS, TOPICS, Shop
from tests.cli.conftest import Cli, until

pytestmark = pytest.mark.live


@pytest.fixture
def shop(kafka_bootstrap: str, redis_url: str, tmp_path: Path) -> Shop:
    mark = f"-{time.time_ns() % 10**8}"
    folder = tmp_path / "shop"
    folder.mkdir()
    text = TOPICS.replace("prefix: mesh", f"prefix: shop{mark}").replace("  asks:", f"  asks{mark}:")
    (folder / "topics.yaml").write_text(text.replace("  answers:", f"  answers{mark}:"))
    (folder / "shop.py").write_text(AGENTS)
    cli = Cli(None, folder, tmp_path)
    cli.environ |= {"MESH_LOG": f"kafka://{kafka_bootstrap}", "MESH_BOARD": redis_url}
    return Shop(cli)


def test_a_redrive_that_is_killed_on_kafka_goes_on_with_exactly_the_rest(shop: Shop) -> None:
    ids = [f"o-{n:02}" for n in range(10)]
    (shop.cli.folder / "asks.jsonl").write_text("".join(json.dumps({"id": id, "n": 1}) + "\n" for id in ids))
    with shop.cli.up("--create-topics"):
        shop.cli("publish", "ask", "@asks.jsonl", "--wait")
        assert {row["state"] for row in shop.letters()} == {"new"}
        shop.mend()
        with shop.cli.background("dead", "redrive", "--rate", "4/s", "--yes") as running:
            until(lambda: len(shop.answered) >= 3)
            running.signal(signal.SIGKILL)
            running.end()
        assert len(shop.answered) < len(ids)
        rest = shop("redrive", "--yes", "--wait", "--json")
        assert rest.code == 0, rest.err
        assert {row["state"] for row in shop.letters()} == {"done"}
        assert shop.answered == ids, "each once"
        again = shop("redrive", "--yes")
        assert (again.code, again.out, again.err.count("nothing to do")) == (0, "", 1)
        (lone,) = shop("show", shop.letters()[0]["id"], "--json").rows
        assert [(e["state"], e["result"]) for e in lone["ledger"]] == [("done", "completed")]
