"""README's chapter "Debug a run", typed as it stands: each command prints what the chapter shows."""

import shutil
from pathlib import Path

import pytest

from tests.story import ELSE, ROOT, Told, difference, play, story

COLUMNS = 80


def test_the_story_goes_as_told(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "agents", tmp_path / "agents", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "topics.yaml", tmp_path)
    told = story()
    outputs = play([each.command for each in told], tmp_path, {})
    assert [text for text in map(difference, told, outputs) if text] == []


def test_the_story_has_every_mode_and_fits_a_terminal() -> None:
    told = story()
    commands = "\n".join(each.command for each in told)
    for words in ("run list", "--break", "--with", "--run --set", "--agent pricing", "run export", "mesh test"):
        assert words in commands
    shown = [line for each in told for line in each.shown]
    assert "same          17  the same answer" in shown
    assert "different      3  another answer" in shown
    assert [line for line in shown if len(line) > COLUMNS] == []


@pytest.mark.parametrize(
    ("shown", "output", "same"),
    [
        (["a", "b"], "a\nb\n", True),
        (["a"], "a\nb\n", False),
        (["a", "c"], "a\nb\nc\n", False),
        (["a", ELSE, "c"], "a\nb\nc\n", True),
        ([ELSE, "b", ELSE], "a\nb\nc\n", True),
        ([ELSE, "d"], "a\nb\nc\n", False),
        (["took 3 ms"], "took 1.2 s\n", True),
    ],
)
def test_what_is_shown_is_compared_line_by_line(shown: list[str], output: str, same: bool) -> None:
    assert (difference(Told("x", shown), output) == "") == same
