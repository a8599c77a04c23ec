"""Two meshes on one embedded file: apart by default, and refused where one would take the other's topics."""

from pathlib import Path

import pytest

from tests.cli.conftest import Cli

AGENTS = """
from mesh import Context, Payload, agent


class In(Payload, type="{mark}.in"):
    n: int = 0


class Out(Payload, type="{mark}.out"):
    n: int


@agent
async def one(given: In, ctx: Context) -> Out:
    return Out(n=(await ctx.board.add("orders/count")).value)
"""
TOPOLOGY = """
mesh: {{name: two-{mark}, {prefix}inbox: {{partitions: 2}}, limits: {{deadline: 30s}}}}
topics:
  in.{mark}: {{ingress: {mark}.in, partitions: 2}}
  out.{mark}: {{egress: {mark}.out, partitions: 2}}
agents:
  one: {{run: "ag_{mark}:one", on: {mark}.in, emits: {mark}.out, timeout: 5s}}
"""


def mesh(cli: Cli, mark: str, prefix: str = "") -> Cli:
    """A mesh of its own folder on the file that all of them share."""
    folder = Path(cli.folder).parent / f"{mark}{prefix[:6]}"
    folder.mkdir()
    (folder / f"ag_{mark}.py").write_text(AGENTS.format(mark=mark))
    (folder / "topics.yaml").write_text(TOPOLOGY.format(mark=mark, prefix=prefix))
    (folder / "mesh.toml").write_text('log = "sqlite:../shared.db"\n')
    return cli.at(folder)


def counts(cli: Cli, mark: str, runs: int) -> list[int]:
    """Return the counts of the agent in this number of runs, one after the other."""
    done = [cli("publish", f"{mark}.in", "{}", "--wait", "--json") for _ in range(runs)]
    assert [one.code for one in done] == [0] * runs, done
    return [row["results"][0]["data"]["n"] for one in done for row in one.rows if row.get("results")]


def test_two_meshes_on_one_file_work_side_by_side(cli: Cli) -> None:
    a, b = mesh(cli, "a"), mesh(cli, "b")
    with a.up(), b.up():
        assert counts(a, "a", 3) == [1, 2, 3]
        assert counts(b, "b", 2) == [1, 2]
    for one, topics in ((a, "two-a."), (b, "two-b.")):
        own = [row["topic"] for row in one("topics", "list", "--json").rows if "." in row["topic"]]
        assert all(topic.startswith((topics, "in.", "out.")) for topic in own)
        assert one("verify").code == 0
        assert one("board", "keys", "--json").rows == [{"key": "orders/count"}]


def test_a_mesh_refuses_to_start_on_the_topics_of_another(cli: Cli) -> None:
    a, b = mesh(cli, "a", "prefix: shared, "), mesh(cli, "b", "prefix: shared, ")
    with a.up():
        for refused in (b("up"), b("publish", "b.in", "{}")):
            assert refused.code == 2, refused
            assert "belong to mesh 'two-a'" in refused.err
            assert "sqlite:" in refused.err
            assert "Write another `prefix`" in refused.err
        assert counts(a, "a", 1) == [1]


@pytest.mark.parametrize("prefix", ["prefix: shared, ", "prefix: own, "])
def test_a_reader_is_told_whose_log_it_is(cli: Cli, prefix: str) -> None:
    a, b = mesh(cli, "a", "prefix: shared, "), mesh(cli, "b", prefix)
    with a.up():
        for words in (
            *(["run", "list"], ["run", "show", "x"], ["run", "export", "x"], ["topics", "read", "inbox"], ["windows"]),
            *(["replay", "x"], ["replay", "x", "--step"], ["replay", "--check"], ["replay", "--limit", "depth_max=3"]),
            ["replay", "--resend"],
        ):
            refused = b(*words)
            assert refused.code == 2, refused
            assert "this log belongs to mesh 'two-a'; expected a log of mesh 'two-b'" in refused.err, refused
            assert "got one of mesh 'two-a'. Name the topics.yaml of that mesh (--topology" in refused.err
    assert b("run", "list", "--topology", str(a.folder / "topics.yaml")).code == 0


def test_the_former_keys_and_topics_are_kept_by_one_line_each(cli: Cli) -> None:
    before = mesh(cli, "a", "prefix: mesh, ")
    with before.up():
        assert counts(before, "a", 2) == [1, 2]
    without = mesh(cli, "a")
    refused = without("up")
    assert refused.code == 2
    assert "Add that line" in refused.err
    own_prefix = {"MESH_BOARD_PREFIX": "mesh"}
    found = mesh(cli, "b")("board", "get", "orders/count", "--json", env=own_prefix)
    assert found.rows[0]["value"] == 2
