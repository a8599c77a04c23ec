"""`mesh bench`: a short measuring as users type it."""

import json
from pathlib import Path

import pytest

from bench.workloads import NAMES
from tests.cli.conftest import Cli, until

EASY = '[[gate]]\nworkload = "memory"\nfigure = "idle_memory_mib"\nat_most = 100000\n'
HARD = '[[gate]]\nworkload = "memory"\nfigure = "idle_memory_mib"\nat_most = 1\n'


def test_a_workload_is_measured_shown_and_kept(cli: Cli) -> None:
    (cli.folder / "easy.toml").write_text(EASY)
    done = cli("bench", "memory", "--for", "50ms", "--to", "kept", "--gate", "easy.toml")
    assert done.code == 0, done.err
    assert done.out.startswith("memory  an idle mesh  log: sqlite\n")
    assert "idle_memory_mib" in done.out
    assert "✓ memory idle_memory_mib on sqlite: " in done.out
    kept = json.loads((cli.folder / "kept/mesh-memory-sqlite.json").read_text())
    assert kept["command"] == "mesh bench memory --for 0.05s"
    assert "kept in kept/mesh-memory-sqlite.json" in done.err
    assert not (cli.folder / ".mesh").exists(), "it leaves your own mesh alone"


def test_a_gate_that_does_not_hold_is_exit_code_1(cli: Cli) -> None:
    (cli.folder / "hard.toml").write_text(HARD)
    done = cli("bench", "memory", "--for", "50ms", "--to", "kept", "--gate", "hard.toml", "--json")
    assert done.code == 1
    result, verdict = done.rows
    assert result["workload"] == "memory"
    assert result["machine"]["cores"] > 0
    assert verdict["holds"] is False
    assert verdict["gate"].startswith("memory idle_memory_mib on sqlite: ")


def test_the_log_of_your_own_mesh_is_not_used_unless_you_name_it(cli: Cli) -> None:
    done = cli("bench", "memory", "--for", "50ms", "--to", "kept", env={"MESH_LOG": "kafka://127.0.0.1:1"})
    assert done.code == 0, done.err
    named = cli("bench", "memory", "--for", "50ms", "--to", "kept", "--log", "sqlite:named.db")
    assert named.code == 0, named.err
    assert (cli.folder / "named.db").is_file()


def test_child_processes_end_with_it_when_it_is_asked_to_end(cli: Cli) -> None:
    with cli.background("bench", "run1", "--for", "60s", "--to", "kept") as running:
        pid = running.process.pid
        services = Path(f"/proc/{pid}/task/{pid}/children")
        until(lambda: len(services.read_text().split()) == 2)
        started = services.read_text().split()
        running.process.terminate()
        assert running.process.wait(30) == 143
    assert not [pid for pid in started if Path(f"/proc/{pid}").exists()]
    assert not (cli.folder / "kept").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (("rum1",), 3, "Did you mean 'run1'?"),
        (("run1", "--for", "soon"), 2, "--for"),
        (("run1", "--for", "2h"), 2, "up to 1h"),
        (("run1", "--for", "0s"), 2, "more than 0s"),
        (("run1", "--gate", "none.toml"), 2, "there is no such file"),
        (("run1", "--log", "nats://here"), 2, "no log is known by 'nats'"),
    ],
)
def test_what_cannot_be_measured_is_reported_before_anything_is(
    cli: Cli, arguments: tuple[str, ...], code: int, told: str
) -> None:
    done = cli("bench", *arguments)
    assert done.code == code, done.err
    assert told in done.err
    assert done.out == ""


def test_where_the_benchmarks_are_not_installed_it_says_so(cli: Cli) -> None:
    (cli.folder / "installed/bench").mkdir(parents=True)
    (cli.folder / "installed/bench/__init__.py").write_text("")
    cli.environ["PYTHONPATH"] = str(cli.folder / "installed")
    done = cli.fresh("bench", "run1")
    assert done.code == 3
    assert "the benchmarks are not installed" in done.err
    assert "pip install -e ." in done.err


def test_the_help_names_every_workload(cli: Cli) -> None:
    text = " ".join(cli("bench", "--help").out.split())
    assert f"{', '.join(NAMES)}; default: all" in text
