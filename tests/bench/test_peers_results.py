"""A comparison becomes one result for each peer, in the project's format, and says whether the peer was safe."""

from pathlib import Path
from typing import Any

from bench.peers.compare import Measured, Sample
from bench.peers.results import results, subject, versions
from bench.peers.setup import REQUIREMENTS
from bench.report import Result, save_result
from bench.report import results as read

MEASURED = Measured(
    {
        "mesh worker": [Sample(80.0, 5.0), Sample(60.0, 6.0), Sample(70.0, 7.0)],
        "FastStream, 64 workers": [Sample(8.0, 50.0), Sample(5.0, 60.0), Sample(10.0, 70.0)],
    },
    {"Faust": "it ended"},
)
OURS = {"mesh worker": "kafka"}
LOST: dict[str, Any] = {"messages": 300, "kills": 2, "lost": 18, "doubled": 3, "safe": False}


def made(verdicts: dict[str, dict[str, Any]]) -> list[Result]:
    return results("hop", OURS, MEASURED, verdicts, {"rounds": 3}, "python -m bench.peers")


def test_each_peer_has_a_result_with_ours_beside_it_and_the_ratio_of_each_round() -> None:
    ours, found, _ = made({})
    assert (found.subject, found.workload, found.log) == ("faststream-64-workers", "hop", "kafka")
    assert (ours.subject, [figure.name for figure in ours.figures]) == ("mesh-worker", ["hops_per_s", "cpu_us_per_hop"])
    figures = {figure.name: figure for figure in found.figures}
    assert figures["hops_per_s"].value == 8
    assert figures["cpu_us_per_hop"].better == "less"
    assert figures["mesh_hops_per_s"].value == 70
    assert figures["mesh_is_times"].samples == [10, 12, 7]
    assert figures["mesh_is_times"].value == 10
    assert figures["mesh_is_times"].at == {"log": "kafka"}


def test_a_peer_that_could_not_be_measured_is_there_with_its_reason() -> None:
    *_, found = made({})
    assert (found.subject, list(found.figures), found.settings["failed"]) == ("faust", [], "it ended")


def test_runs_are_compared_with_ours_on_each_log() -> None:
    ours = {"mesh on Kafka": "kafka", "mesh embedded": "sqlite"}
    samples = {"mesh on Kafka": 30.0, "mesh embedded": 20.0, "Restate": 2.0}
    measured = Measured({name: [Sample(per_s, 1.0)] for name, per_s in samples.items()}, {})
    mine, _, found = results("run1", ours, measured, {}, {}, "")
    assert found.log == "none"
    times = {figure.at["log"]: figure.value for figure in found.figures if figure.name == "mesh_is_times"}
    assert times == {"kafka": 15, "sqlite": 10}
    assert "64 runs in flight" in found.how
    assert "bursts" in mine.how


def test_a_peer_that_was_not_killed_is_neither_safe_nor_unsafe() -> None:
    _, found, _ = made({})
    assert found.safe is None
    assert "SIGKILL" not in found.how


def test_what_the_kill_did_is_in_the_result() -> None:
    _, found, _ = made({"mesh worker": {**LOST, "safe": True}, "FastStream, 64 workers": LOST})
    assert found.safe is False
    assert found.settings["kill_9"] == LOST
    assert "SIGKILL" in found.how


def test_a_peer_whose_kill_test_could_not_be_made_is_neither_safe_nor_unsafe() -> None:
    _, found, _ = made({"FastStream, 64 workers": {"failed": "it did not start"}})
    assert found.safe is None
    assert found.settings["kill_9"] == {"failed": "it did not start"}


def test_a_peer_that_was_only_killed_has_a_result_without_figures() -> None:
    (found,) = results("hop", OURS, Measured({}, {}), {"Faust": LOST}, {}, "")
    assert (found.subject, list(found.figures), found.safe) == ("faust", [], False)


def test_results_are_found_again_by_the_report(tmp_path: Path) -> None:
    _, found, _ = made({"FastStream, 64 workers": LOST})
    path = save_result(found.body(), tmp_path)
    assert path.name == "faststream-64-workers-hop-kafka.json"
    (body,) = read(tmp_path)
    assert body["settings"]["peers"]["faststream"] == versions()["faststream"]


def test_names_become_names_of_files() -> None:
    assert subject("DBOS on SQLite") == "dbos-on-sqlite"


def test_every_package_of_the_peers_is_pinned_and_no_index_is_named() -> None:
    lines = [line for line in REQUIREMENTS.read_text().splitlines() if line and not line.startswith("#")]
    assert lines
    for line in lines:
        name, _, version = line.partition("==")
        assert name
        assert version, f"{line}: pinned to nothing"
        assert not line.startswith("-")
        assert "://" not in line
        assert "@" not in line
