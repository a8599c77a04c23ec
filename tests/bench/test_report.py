"""Results as they are written and read again."""

import subprocess
from pathlib import Path

import pytest

from bench import report
from bench.report import FORMAT, LESS, Figure, Result, commit, middle, results, save_result, significant
from mesh.core.errors import ConfigInvalid

RESULT = Result(
    "run1",
    "one-step runs",
    "They are counted.",
    "sqlite",
    [middle("runs_per_s", [900.0, 1_000.0, 1_300.0], "runs/s"), Figure("p50_ms", 1.5, "ms", LESS, {"rate_per_s": 50})],
    {"seconds": 5.0},
    "mesh bench run1 --for 5s",
)


def test_a_result_says_what_one_needs_to_believe_it() -> None:
    body = RESULT.body()
    assert body["format"] == FORMAT
    assert (body["subject"], body["workload"], body["log"], body["safe"]) == ("mesh", "run1", "sqlite", None)
    assert body["machine"]["cores"] > 0
    assert body["versions"]["python"]
    assert body["command"] == "mesh bench run1 --for 5s"
    assert {"commit", "measured_at", "settings", "what", "how"} <= set(body)
    assert body["figures"][0]["samples"] == [900, 1_000, 1_300]
    assert body["figures"][1]["at"] == {"rate_per_s": 50}


def test_what_is_saved_is_read_again_and_other_files_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "older.json").write_text('{"command": "python -m bench.decide", "figures": {}}')
    (tmp_path / "list.json").write_text("[1]")
    path = save_result(RESULT.body(), tmp_path)
    assert path == tmp_path / "mesh-run1-sqlite.json"
    save_result(RESULT._replace(log="kafka", subject="aiokafka").body(), tmp_path)
    assert [(b["subject"], b["log"]) for b in results(tmp_path)] == [("aiokafka", "kafka"), ("mesh", "sqlite")]


def test_a_figure_is_the_median_of_its_samples() -> None:
    found = middle("runs_per_s", [1.0, 90.0, 2.0], "runs/s", workers=2)
    assert (found.value, found.at) == (2, {"workers": 2})
    with pytest.raises(ValueError, match="no samples"):
        middle("runs_per_s", [], "runs/s")


def test_numbers_are_kept_with_four_significant_digits() -> None:
    assert [significant(n) for n in (12_345.6, 1.23456, 0.000123456, 7.0)] == [12_350, 1.235, 0.0001235, 7]
    assert isinstance(significant(12_345.6), int)


def test_a_result_that_is_no_json_is_reported_with_its_place(tmp_path: Path) -> None:
    (tmp_path / "torn.json").write_text('{"format":')
    with pytest.raises(ConfigInvalid) as caught:
        results(tmp_path)
    assert str(tmp_path / "torn.json") in caught.value.where


def test_the_commit_has_a_mark_for_changed_code_and_none_for_what_was_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def git(*words: str) -> None:
        who = ("-c", "user.name=a", "-c", "user.email=a@b")
        subprocess.run(["git", *who, "-C", str(tmp_path), *words], check=True, capture_output=True)

    files = [tmp_path / "code.py", tmp_path / "bench/results/mesh-hop-sqlite.json", tmp_path / "docs/benchmarks.md"]
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("1")
    git("init", "-q")
    git("add", "-A")
    git("commit", "-qm", "one")
    monkeypatch.setattr(report, "RESULTS", tmp_path / "bench/results")
    for file in files[1:]:
        file.write_text("2")
    clean = commit()
    assert clean
    assert not clean.endswith("+")
    files[0].write_text("2")
    assert commit() == f"{clean}+"
