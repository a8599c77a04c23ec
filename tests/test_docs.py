"""The pages made from the code are those in docs/, and a page that is not is noticed."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from mesh.app.wiring import topic_specs
from mesh.core.protocol.event import EGRESS, INBOX_KINDS, KINDS, OUTCOME, TASK
from mesh.core.protocol.headers import HEADERS
from mesh.core.publishing.effect_records import DEAD_LETTER_HEADERS, OUTCOME_FIELDS
from mesh.core.reason_codes import REASONS
from mesh.core.run.state import ENDINGS, RUN_STATES, TASK_STATES
from mesh.core.topology.loader import load
from tests.bad_inputs import ELSEWHERE, ROWS

ROOT = Path(__file__).parent.parent
PAGES = ("docs/reference/protocol.md", "docs/reference/states.md", "docs/reference/bad-input.md")


def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "scripts/docs.py", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_pages_in_docs_say_what_the_code_says() -> None:
    done = run("--check")
    assert done.returncode == 0, done.stderr


def test_a_page_that_differs_or_is_missing_is_noticed_and_mended(tmp_path: Path) -> None:
    root = ("--root", str(tmp_path))
    assert run("--check", *root).returncode == 1
    assert not list(tmp_path.iterdir()), "checking writes nothing"
    assert run(*root).returncode == 0
    assert run("--check", *root).returncode == 0
    (tmp_path / PAGES[0]).write_text("something else", "utf-8")
    done = run("--check", *root)
    assert done.returncode == 1
    assert done.stderr == "docs/reference/protocol.md differs from the code; run `make docs`\n"


def test_every_table_of_the_code_is_in_the_pages_whole() -> None:
    page = (ROOT / PAGES[0]).read_text("utf-8")
    for name in [
        *REASONS,
        *KINDS,
        *(name for table in (HEADERS, DEAD_LETTER_HEADERS, OUTCOME_FIELDS) for name, _ in table),
    ]:
        assert f"| `{name}` |" in page


def test_every_topic_of_a_mesh_is_in_the_table_of_topics() -> None:
    page = (ROOT / PAGES[0]).read_text("utf-8")
    mesh = load("mesh: {name: m, prefix: mesh}\ntopics: {i: {ingress: ask}}\nagents: {a: {run: 'm:f', on: ask}}")
    names = {spec.name for spec in topic_specs(mesh)} - {"i", mesh.tasks("a")}
    assert [name for name in sorted(names) if f"\n| `{name}` | " not in page] == []


def test_every_state_and_ending_is_in_the_diagrams() -> None:
    page = (ROOT / PAGES[1]).read_text("utf-8")
    for before, event, after in (*RUN_STATES, *TASK_STATES):
        assert f"{'[*]' if before == '(none)' else before} --> {after}: {event}\n" in page
    for ending, meaning in ENDINGS.items():
        assert f"{ending} --> [*]\n" in page
        assert f"| {ending} | {meaning} |" in page


@pytest.mark.parametrize("page", PAGES)
def test_the_tables_of_a_page_are_well_formed(page: str) -> None:
    rows = 0
    for block in (ROOT / page).read_text("utf-8").split("\n\n"):
        if not block.startswith("| "):
            continue
        columns = {len(re.findall(r"(?<!\\)\|", line)) for line in block.rstrip().split("\n")}
        assert len(columns) == 1, block
        rows += block.count("\n")
    assert rows


def test_every_kind_has_a_meaning() -> None:
    assert set(KINDS) >= {*INBOX_KINDS, TASK, EGRESS, OUTCOME}
    assert all(KINDS.values())
    assert not INBOX_KINDS & {TASK, EGRESS, OUTCOME}


def test_every_bad_input_of_the_table_is_in_its_page() -> None:
    page = (ROOT / PAGES[2]).read_text("utf-8")
    for row in ROWS:
        assert f"| {row.number} | {row.what} |" in page
    for number in ELSEWHERE:
        assert f"| {number} |" in page
    assert page.isascii() or page.replace("\n", "").isprintable()
