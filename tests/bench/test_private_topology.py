"""A benchmark's topology has a prefix and topics of its own."""

from pathlib import Path

import pytest

from bench.mesh_processes import ROOT, private_topology
from mesh.app.wiring import load_topology


@pytest.mark.parametrize("source", [ROOT / "topics.yaml", ROOT / "tests" / "live" / "chaos" / "topology.yaml"])
@pytest.mark.parametrize("prefix", ["", "  prefix: plain\n", "  prefix: plain # with a comment\n"])
def test_the_prefix_is_marked_wherever_it_is_set(source: Path, prefix: str, tmp_path: Path) -> None:
    lines = [line for line in source.read_text().splitlines(keepends=True) if not line.startswith("  prefix:")]
    at = next(n for n, line in enumerate(lines) if line.startswith("  name:"))
    (tmp_path / "source.yaml").write_text("".join([*lines[: at + 1], prefix, *lines[at + 1 :]]))
    before = load_topology(str(tmp_path / "source.yaml"))
    made = load_topology(str(private_topology(tmp_path / "source.yaml", tmp_path, "-mark")))
    assert made.prefix == f"{before.prefix}-mark"
    assert sorted(made.topics) == sorted(f"{name}-mark" for name in before.topics)
    assert (made.name, sorted(made.agents)) == (before.name, sorted(before.agents))
