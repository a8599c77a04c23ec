"""Commands that name a run find it through the index of runs."""

from pathlib import Path

import pytest

from tests.cli.conftest import Cli


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["run", "show", "finding"], 0),
        (["run", "export", "finding"], 0),
        (["run", "cancel", "finding"], 5),
        (["run", "pause", "finding"], 5),
        (["run", "cancel", "--all"], 0),
        (["replay", "finding"], 0),
        (["replay", "finding", "--step"], 0),
        (["replay", "finding", "--check"], 0),
        (["replay", "finding", "--limit", "depth_max=9"], 0),
        (["replay", "finding", "--run"], 0),
        (["verify", "--run", "finding"], 0),
        (["topics", "read", "inbox", "--run", "finding"], 0),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_named_run_is_found_through_the_index(desk: Cli, tmp_path: Path, words: list[str], code: int) -> None:
    desk("publish", "hello", '{"name": "ann"}', "--id", "finding", "--wait")
    done = desk(*words, env={"MESH_RUN_INDEX": str(tmp_path / "index")})
    assert done.code == code, done.err
    assert [path.suffix for path in (tmp_path / "index").iterdir() if path.suffix == ".db"] == [".db"]


def test_the_run_of_a_dead_letter_is_found_through_the_index(desk: Cli, tmp_path: Path) -> None:
    run = desk("publish", "break.me", "{}", "--wait", "--json").rows[0]["run"]
    letter = next(row for row in desk("dead", "list", "--json").rows if row["run"] == run)
    shown = desk("dead", "show", letter["id"], "--json", env={"MESH_RUN_INDEX": str(tmp_path / "index")}).rows[0]
    assert shown["attempts"]
    assert list((tmp_path / "index").glob("*.db"))
