"""Results as they are written and read again."""

from pathlib import Path

import pytest

from bench.report import FORMAT, LESS, Figure, Result, middle, results, save_result, significant

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
