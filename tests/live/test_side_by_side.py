"""Two meshes on one Kafka and one Redis: apart by their names alone, refused where they would share topics."""

import time
from pathlib import Path

import pytest

from tests.cli.conftest import Cli
from tests.cli.test_side_by_side import AGENTS, TOPOLOGY, counts

pytestmark = pytest.mark.live


@pytest.fixture
def clis(kafka_bootstrap: str, redis_url: str, tmp_path: Path) -> dict[str, Cli]:
    """The command in the folders of two meshes, whose names and topics no other test has."""
    found, run = {}, f"{time.time_ns() % 10**8}"
    for mark in ("a", "b"):
        (tmp_path / mark).mkdir()
        (tmp_path / mark / f"ag_{mark}.py").write_text(AGENTS.format(mark=mark))
        text = TOPOLOGY.format(mark=mark, prefix="")
        for name in ("two-", "in.", "out."):
            text = text.replace(f"{name}{mark}:", f"{name}{mark}-{run}:").replace(
                f"{name}{mark},", f"{name}{mark}-{run},"
            )
        (tmp_path / mark / "topics.yaml").write_text(text)
        found[mark] = Cli(None, tmp_path / mark, tmp_path)
        found[mark].environ |= {"MESH_LOG": f"kafka://{kafka_bootstrap}", "MESH_BOARD": redis_url}
    return found


def test_two_meshes_on_one_kafka_and_redis_work_side_by_side(clis: dict[str, Cli]) -> None:
    a, b = clis["a"], clis["b"]
    with a.up("--create-topics"), b.up("--create-topics"):
        assert counts(a, "a", 3) == [1, 2, 3]
        assert counts(b, "b", 2) == [1, 2]
        for mesh in (a, b):
            assert mesh("verify").code == 0
            assert mesh("board", "keys", "--json").rows == [{"key": "orders/count"}]
        topology = b.folder / "topics.yaml"
        own = topology.read_text()
        name = next(line for line in (a.folder / "topics.yaml").read_text().splitlines() if "two-a" in line)
        prefix = name.partition("name: ")[2].partition(",")[0]
        topology.write_text(own.replace("{name: ", f"{{prefix: {prefix}, name: "))
        refused = b("publish", "b.in", "{}")
        assert refused.code == 2, refused
        assert f"belong to mesh '{prefix}'" in refused.err
        assert counts(a, "a", 1) == [4]
