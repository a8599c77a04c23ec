"""Run the commands of agents/README.md."""

import re
import subprocess
import sys
from pathlib import Path

from mesh.app.wiring import load_agents, load_topology
from tests.agents.walk import FILES as MODULES
from tests.agents.walk import PROJECT

README = (PROJECT / "agents" / "README.md").read_text(encoding="utf-8")
FILES = dict(re.findall(r"^## \d\. [^\n`]*`([\w.]+)`\n+```\w+\n(.*?)^```", README, re.MULTILINE | re.DOTALL))


def test_the_example_of_the_readme_passes_its_own_test(tmp_path: Path) -> None:
    assert set(FILES) == {"tea.py", "topics.yaml", "test_tea.py"}
    for name, text in FILES.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_tea.py"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(PROJECT), "PATH": ""},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout


def test_the_readme_names_every_agent_of_both_example_apps() -> None:
    for path in MODULES:
        if path.stem not in ("__init__", "events"):
            assert f"`{path.stem}`" in README, path.name


def test_the_example_declares_only_what_its_function_does(tmp_path: Path) -> None:
    for name, text in FILES.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    topology = load_topology(str(tmp_path / "topics.yaml"))
    kettle = load_agents(topology)["kettle"]
    assert (kettle.consumes, kettle.emits) == (topology.agents["kettle"].on, topology.agents["kettle"].emits)
