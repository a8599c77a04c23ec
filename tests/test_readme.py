"""README, ARCHITECTURE and docs/ show what the code has: topics, invariants, manifests, commands, files and folders."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from bench.workloads import NAMES
from mesh.app.wiring import load_topology, topic_specs
from mesh.core.verification.report import INVARIANTS
from tests.command_line import parses

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text("utf-8")
ARCHITECTURE = (ROOT / "ARCHITECTURE.md").read_text("utf-8")
GUIDE = ROOT / "docs" / "guide"
OPERATIONS = (GUIDE / "operations.md").read_text("utf-8")
SERVERS = (GUIDE / "kafka-and-redis.md").read_text("utf-8")
MESH = load_topology(str(ROOT / "topics.yaml"))
PAGES = ["README.md", "ARCHITECTURE.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "agents/README.md"]
LINES_MAX = 250
"""Lines of README.md and of ARCHITECTURE.md."""
PAGES += [str(path.relative_to(ROOT)) for path in sorted((ROOT / "docs").rglob("*.md"))]


def sample(page: str, command: str) -> str:
    """The output that a page shows below a command."""
    block = page.split(f"$ {command}", 1)[1].split("\n```", 1)[0]
    return block.split("\n$ ", 1)[0].split("\n", 1)[1]


def test_the_sample_of_verify_has_the_invariants_as_they_are() -> None:
    told = re.findall(r"^(I\d+) +[\d,]+ +0  (.+)$", sample(OPERATIONS, "mesh verify"), re.MULTILINE)
    assert [text for _, text in told] == [INVARIANTS[name] for name, _ in told]
    assert {name for name, _ in told} >= {f"I{n}" for n in (2, 3, 4, 5, 6, 7, 8, 9, 13, 15, 16, 17, 18)}


def test_the_sample_of_topics_create_counts_those_of_the_example() -> None:
    assert f"\n{len(topic_specs(MESH))} created, 0 there already" in sample(SERVERS, "mesh topics create")


def test_the_sample_of_a_scaled_object_is_what_export_prints() -> None:
    typed = next(line for line in SERVERS.split("\n") if line.startswith("$ mesh export keda"))
    command = [sys.executable, "-m", "mesh", *typed.removeprefix("$ mesh ").split()]
    printed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=True).stdout
    shown = [line for line in sample(SERVERS, typed.removeprefix("$ ")).split("\n") if line not in ("", "…")]
    assert shown
    assert [line for line in shown if line not in printed.split("\n")] == []


def test_the_number_of_workloads_is_right() -> None:
    number = {16: "sixteen", 17: "seventeen", 18: "eighteen", 19: "nineteen"}[len(NAMES)]
    assert f"{number} workloads" in OPERATIONS


@pytest.mark.parametrize("page", PAGES)
def test_links_and_paths_of_a_page_exist(page: str) -> None:
    text = (ROOT / page).read_text("utf-8")
    folder = (ROOT / page).parent
    links = [link for link in re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", text) if not (folder / link).exists()]
    assert links == []


def test_every_path_that_a_page_names_exists() -> None:
    missing = {}
    for page in PAGES:
        text = (ROOT / page).read_text("utf-8")
        named = re.findall(r"`((?:mesh|tests|agents|docs|bench|scripts)/[\w./-]*)`", text)
        gone = [path for path in named if page != "CHANGELOG.md" and not (ROOT / path).exists()]
        missing.update({page: gone} if gone else {})
    assert missing == {}


def test_architecture_names_every_folder_of_the_code() -> None:
    named = set(re.findall(r"`([\w./-]+/)`", ARCHITECTURE))
    folders = [path.parent.relative_to(ROOT).as_posix() for path in sorted((ROOT / "mesh").rglob("__init__.py"))]
    assert len(folders) > 20
    inner = {name for name in named if name.count("/") == 1}
    missing = [f for f in folders if f"{f}/" not in named and f"{f.rpartition('/')[2]}/" not in inner]
    assert missing == []


@pytest.mark.parametrize("text", [README, ARCHITECTURE], ids=["README", "ARCHITECTURE"])
def test_the_first_pages_are_short(text: str) -> None:
    assert text.count("\n") <= LINES_MAX


def test_every_page_is_reached_from_the_readme() -> None:
    reached, todo = set(), [ROOT / "README.md"]
    while todo:
        page = todo.pop().resolve()
        if page not in reached and page.suffix == ".md":
            reached.add(page)
            links = re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", page.read_text("utf-8"))
            todo += [page.parent / link for link in links]
    pages = {(ROOT / page).resolve() for page in PAGES} - {ROOT / "CHANGELOG.md", ROOT / "SECURITY.md"}
    assert sorted(pages - reached) == []


def test_the_agent_of_the_readme_fits_its_topology(tmp_path: Path) -> None:
    blocks = re.findall(r"```(\w+)\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    code = next(text for language, text in blocks if language == "python" and "@agent" in text)
    (tmp_path / "fraud.py").write_text(code, "utf-8")
    (tmp_path / "topics.yaml").write_text(next(text for language, text in blocks if language == "yaml"), "utf-8")
    command = [sys.executable, "-m", "mesh", "check", "--topology", str(tmp_path / "topics.yaml")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("✓")


def test_the_wrong_type_of_the_readme_is_answered_as_shown(tmp_path: Path) -> None:
    typed = next(line for line in README.split("\n") if line.startswith("$ mesh publish order.placd"))
    command = [sys.executable, "-m", "mesh", *shlex.split(typed.removeprefix("$ mesh "))]
    log = ["--log", f"sqlite:{tmp_path / 'mesh.db'}"]
    done = subprocess.run([*command, *log], cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.stderr.strip() == sample(README, typed.removeprefix("$ ")).strip()


@pytest.mark.parametrize("page", PAGES)
def test_every_command_that_a_page_shows_is_understood(page: str) -> None:
    text = (ROOT / page).read_text("utf-8")
    shown = re.findall(r"^\$ (?:[A-Z_]+=\S+ )*mesh (.+)$", text, re.MULTILINE)
    wrong = [line for line in shown if not parses(shlex.split(re.split(r" [#|&>]", line)[0]))]
    assert wrong == []


def test_the_hooks_run_the_words_of_make_check() -> None:
    check = re.search(r"^check: ([a-z ]+)##", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
    assert check is not None
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text("utf-8"))["repos"]
    assert [repo["repo"] for repo in hooks] == ["local"], "a hook that is fetched from elsewhere"
    words = [hook["entry"] for hook in hooks[0]["hooks"] if hook["entry"].startswith("make ")]
    assert words == [f"make {word}" for word in check[1].split()]
