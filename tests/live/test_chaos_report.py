"""Results of faults are stored row by row, and the page in docs/ shows the stored ones."""

from pathlib import Path

import orjson

from bench.report import RESULTS
from tests.live.chaos.fault import CI, FULL
from tests.live.chaos.field import COUNTED
from tests.live.chaos.report import NAME, PAGE, keep, page, write_page

ROW = {
    **dict.fromkeys(COUNTED, 0),
    "fault": "F01",
    "title": "killed",
    "kills": 30,
    "acked": 2_000,
    "tasks": 20_000,
    "worst_s": 7.25,
    "failed": [],
}


def test_a_later_run_takes_the_place_of_the_same_fault_at_the_same_scale_only(tmp_path: Path) -> None:
    keep([ROW, {**ROW, "fault": "F02"}], log="kafka", scale=FULL, seed=1, folder=tmp_path)
    keep([{**ROW, "kills": 2}], log="kafka", scale=CI, seed=1, folder=tmp_path)
    keep(
        [{**ROW, "kills": 31, "lost": 1, "failed": ["nothing is lost"]}],
        log="kafka",
        scale=FULL,
        seed=2,
        folder=tmp_path,
    )
    rows = orjson.loads((tmp_path / NAME).read_bytes())["rows"]
    assert {place: row["kills"] for place, row in rows.items()} == {
        "F01 kafka full": 31,
        "F02 kafka full": 30,
        "F01 kafka ci": 2,
    }
    write_page(tmp_path, tmp_path / "page.md")
    text = (tmp_path / "page.md").read_text()
    assert "| F01: killed | kafka | 2,000 (20,000) | 31 | 1 | 0 | 0 | 0 | 7.2 s | **not so: nothing is lost** |" in text
    assert "| F02: killed | kafka | 2,000 (20,000) | 30 | 0 | 0 | 0 | 0 | 7.2 s | hold |" in text


def test_the_page_in_docs_says_what_was_kept() -> None:
    assert PAGE.read_text("utf-8") == page(orjson.loads((RESULTS / NAME).read_bytes()))
