"""What README.md shows is what the code has: topics, invariants, digest, manifests, workloads, commands and files."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from bench.workloads import NAMES
from mesh.app.wiring import load_topology, topic_specs
from mesh.core.verification.report import INVARIANTS

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text("utf-8")
MESH = load_topology(str(ROOT / "topics.yaml"))
PAGES = ["README.md", "ARCHITECTURE.md", "CHANGELOG.md", "agents/README.md"]
PAGES += [str(path.relative_to(ROOT)) for path in sorted((ROOT / "docs").rglob("*.md"))]


def sample(command: str) -> str:
    """The output that README shows below a command."""
    block = README.split(f"$ {command}", 1)[1].split("\n```", 1)[0]
    return block.split("\n$ ", 1)[0].split("\n", 1)[1]


def test_the_sample_of_verify_has_the_invariants_as_they_are() -> None:
    told = re.findall(r"^(I\d+) +[\d,]+ +0  (.+)$", sample("mesh verify"), re.MULTILINE)
    assert [text for _, text in told] == [INVARIANTS[name] for name, _ in told]
    assert {name for name, _ in told} >= {f"I{n}" for n in (2, 3, 4, 5, 6, 7, 8, 9, 13, 15, 16, 17, 18)}


def test_the_sample_of_topics_create_counts_those_of_the_example() -> None:
    assert f"\n{len(topic_specs(MESH))} created, 0 there already" in sample("mesh topics create")


def test_the_sample_of_a_scaled_object_is_what_export_prints() -> None:
    typed = next(line for line in README.split("\n") if line.startswith("$ mesh export keda")).removeprefix("$ mesh ")
    command = [sys.executable, "-m", "mesh", *typed.split()]
    printed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True).stdout
    shown = [line for line in sample(f"mesh {typed}").split("\n") if line not in ("", "…")]
    assert shown
    assert [line for line in shown if line not in printed.split("\n")] == []


def test_the_number_of_workloads_is_right() -> None:
    number = {16: "sixteen", 17: "seventeen", 18: "eighteen"}[len(NAMES)]
    assert f"{number} workloads" in README


@pytest.mark.parametrize("page", PAGES)
def test_links_and_paths_of_a_page_exist(page: str) -> None:
    text = (ROOT / page).read_text("utf-8")
    folder = (ROOT / page).parent
    links = [link for link in re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", text) if not (folder / link).exists()]
    assert links == []


def test_the_paths_in_architecture_exist() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text("utf-8")
    named = re.findall(r"`((?:core|wire|services|cli|tests|mesh|agents|docs)/[\w./]*)`", text)
    assert len(named) > 20
    missing = [path for path in named if not ((ROOT / path).exists() or (ROOT / "mesh" / path).exists())]
    assert missing == []
