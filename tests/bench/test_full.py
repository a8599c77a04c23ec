"""`make bench`: parts one after the other, what fails is said, what cannot be had is left out."""

import socket
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest

from bench import full
from bench.__main__ import free_port
from bench.full import Options, Run, done
from bench.mesh_processes import ROOT
from bench.plan import Part

SETUP = Part("the environment of the peers", "bench.peers.setup", beside_s=1)
PEERS = Part("peers: run1", "bench.peers", needs="peers broker", beside_s=1)
HOP = Part("hop on Kafka", "mesh", ("bench", "hop", "--log", full.LOG), needs="broker", beside_s=1)
RUN1 = Part("run1 embedded", "mesh", ("bench", "run1"), 5, 1, 1)


class Ran(list[str]):
    """The commands that ran; `fails`: those that failed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, fails: str = "none") -> None:
        def run(words: list[str], patience_s: float) -> bool:
            self.append(" ".join(words))
            return fails not in self[-1]

        monkeypatch.setattr(full, "done", run)


def test_what_needs_a_broker_waits_for_its_address(monkeypatch: pytest.MonkeyPatch) -> None:
    ran, run = Ran(monkeypatch), Run([RUN1, HOP], 20)
    run.until("broker")
    assert (ran, run.needs_broker) == (["mesh bench run1 --for 5s"], True)
    run.at("kafka://127.0.0.1:4711")
    run.until(None)
    assert ran[1:] == ["mesh bench hop --log kafka://127.0.0.1:4711"]
    assert not run.failed


def test_a_part_that_fails_is_reported_and_the_others_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    ran, run = Ran(monkeypatch, fails="run1"), Run([RUN1, HOP], 20)
    run.until(None)
    assert len(ran) == 2
    assert run.failed == ["run1 embedded"]


def test_without_their_environment_peers_are_left_out_and_nothing_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    ran, run = Ran(monkeypatch, fails="setup"), Run([SETUP, RUN1, HOP, PEERS], 20)
    run.until(None)
    assert ran == ["bench.peers.setup", "mesh bench run1 --for 5s", f"mesh bench hop --log {full.LOG}"]
    assert run.left_out == ["the peers: their environment could not be made"]
    assert not run.failed


def test_when_it_is_late_parts_measure_less(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ran, run = Ran(monkeypatch), Run([RUN1], 0.01)
    run.until(None)
    assert ran == ["mesh bench run1 --for 1.25s"]
    assert "run1 embedded: about 2 s, measuring 25% of the planned time; 1 parts left, 0:02" in capsys.readouterr().out


def test_a_part_that_does_not_end_is_ended_with_all_it_started(tmp_path: Path) -> None:
    (tmp_path / "endless.py").write_text(
        "import subprocess, sys, pathlib\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        f"pathlib.Path({str(tmp_path / 'pid')!r}).write_text(str(child.pid))\n"
        "child.wait()\n"
    )
    code = "import sys; sys.path.insert(0, sys.argv[1]); from bench.full import done; print(done(['endless'], 3.0))"
    environ = {"PYTHONPATH": f"{tmp_path}:{ROOT}", "PATH": "/usr/bin:/bin"}
    options = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], env=environ, capture_output=True, text=True, timeout=60, check=True
    )
    assert options.stdout.splitlines()[-1] == "False", options.stderr
    pid = (tmp_path / "pid").read_text()
    stat = Path(f"/proc/{pid}/stat")
    assert not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] == "Z"


def test_a_module_that_ends_well_or_badly() -> None:
    assert done(["bench.gates", "--help"], 60)
    assert not done(["bench.gates", "/nowhere.toml"], 60)


def test_parts_are_chosen_by_words_and_can_be_made_short(tmp_path: Path) -> None:
    (part, other) = Options(tmp_path, tmp_path, 20, ["run1 emb", "peers: hop"], True, 0.1).parts()
    assert part.words()[-2:] == ["--for", "0.1s"]
    assert other.words()[-2:] == ["--seconds", "0.1"]


def test_a_short_run_from_the_first_part_to_the_pages(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    kept, docs = tmp_path / "kept", tmp_path / "docs"
    where = ["--to", str(kept), "--docs", str(docs)]
    words = [
        sys.executable,
        "-m",
        "bench.full",
        "--only",
        "memory emb,board",
        "--no-peers",
        "--seconds",
        "0.05",
        *where,
    ]
    options = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=180, check=False)
    assert "board embedded: about 1 s; 2 parts left, 0:03" in options.stdout
    page = (docs / "reference" / "benchmarks.md").read_text("utf-8")
    assert "| idle mesh, all services, embedded, of a core | ≤ 3 % |" in page
    assert (docs / "reference" / "benchmarks" / "memory.svg").exists()
    # Sizes are made from run1, which was not wished for: that page cannot be made, and it is said.
    assert options.stdout.splitlines()[-1] == "   failed: docs/guide/scaling.md"
    assert options.returncode == 1


def test_where_no_broker_can_be_started_it_is_said_and_the_rest_goes_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ran = Ran(monkeypatch)
    monkeypatch.setattr(full, "broker", lambda: nullcontext(""))
    options = Options(tmp_path, tmp_path, 20, ["setup", "run1", "peers"], True, None)
    assert full.report(options) == 0
    assert ran[:3] == [
        "bench.peers.setup",
        f"mesh bench run1 --to {tmp_path} --for 8s",
        f"bench.peers --workload run1 --repeat 5 --only embedded,restate,dbos --to {tmp_path} --seconds 2",
    ]
    assert not any("kafka" in words for words in ran)
    assert [words.split()[0] for words in ran[-2:]] == ["bench.report_page", "bench.scaling_page"]
    assert "left out: Kafka: no broker could be started here" in capsys.readouterr().out


def test_the_port_of_the_broker_is_free() -> None:
    socket.create_server(("127.0.0.1", free_port())).close()
