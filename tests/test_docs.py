"""The pages in docs/ that are made from the code are up to date, and a page that is not is found."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import mesh.errors
import mesh.testing
from mesh.app.wiring import topic_specs
from mesh.cli.app import COMMANDS
from mesh.core.protocol.event import EGRESS, INBOX_KINDS, KINDS, OUTCOME, TASK
from mesh.core.protocol.headers import HEADERS
from mesh.core.publishing.effect_records import DEAD_LETTER_HEADERS, OUTCOME_FIELDS
from mesh.core.reason_codes import REASONS
from mesh.core.run.state import ENDINGS, RUN_STATES, TASK_STATES
from mesh.core.topology.loader import (
    AGENT_WORDS,
    LIMIT_WORDS,
    MESH_WORDS,
    RETRY_WORDS,
    TOP_WORDS,
    TOPIC_WORDS,
    load,
)
from mesh.core.verification.report import INVARIANTS
from mesh.settings import Settings
from tests.bad_inputs import ELSEWHERE, ROWS

ROOT = Path(__file__).parent.parent
REFERENCE = ROOT / "docs" / "reference"
PAGES = tuple(f"docs/reference/{path.name}" for path in sorted((ROOT / "scripts" / "pages").glob("*.md")))
TABLES = [page for page in PAGES if "python" not in page]


def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "scripts/docs.py", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )


def test_the_pages_in_docs_say_what_the_code_says() -> None:
    done = run("--check")
    assert done.returncode == 0, done.stderr


def test_a_page_that_differs_or_is_missing_is_found_and_written(tmp_path: Path) -> None:
    root = ("--root", str(tmp_path))
    assert run("--check", *root).returncode == 1
    assert not list(tmp_path.iterdir()), "checking writes nothing"
    assert run(*root).returncode == 0
    assert run("--check", *root).returncode == 0
    (tmp_path / "docs/reference/protocol.md").write_text("something else", "utf-8")
    done = run("--check", *root)
    assert done.returncode == 1
    assert done.stderr == "docs/reference/protocol.md differs from the code; run `make docs`\n"


def test_every_table_of_the_code_is_in_the_pages_whole() -> None:
    page = "".join((REFERENCE / name).read_text("utf-8") for name in ("protocol.md", "reason-codes.md"))
    for name in [
        *REASONS,
        *KINDS,
        *(name for table in (HEADERS, DEAD_LETTER_HEADERS, OUTCOME_FIELDS) for name, _ in table),
    ]:
        assert f"| `{name}` |" in page


def test_every_topic_of_a_mesh_is_in_the_table_of_topics() -> None:
    page = (REFERENCE / "protocol.md").read_text("utf-8")
    found = load("mesh: {name: m, prefix: mesh}\ntopics: {i: {ingress: ask}}\nagents: {a: {run: 'm:f', on: ask}}")
    names = {spec.name for spec in topic_specs(found)} - {"i", found.tasks("a")}
    assert [name for name in sorted(names) if f"\n| `{name}` | " not in page] == []


def test_every_state_and_ending_is_in_the_diagrams() -> None:
    page = (REFERENCE / "states.md").read_text("utf-8")
    for before, event, after in (*RUN_STATES, *TASK_STATES):
        assert f"{'[*]' if before == '(none)' else before} --> {after}: {event}\n" in page
    for ending, meaning in ENDINGS.items():
        assert f"{ending} --> [*]\n" in page
        assert f"| {ending} | {meaning} |" in page


def test_every_name_that_a_user_may_write_is_in_the_pages() -> None:
    written = {
        "topics-yaml.md": [*TOP_WORDS, *MESH_WORDS, *LIMIT_WORDS, *TOPIC_WORDS, *AGENT_WORDS, *RETRY_WORDS],
        "settings.md": [*Settings.model_fields],
        "invariants.md": [*INVARIANTS],
        "python-api.md": [*mesh.__all__, *mesh.errors.__all__, *mesh.testing.__all__],
        "cli.md": [f"mesh {noun}" for noun in COMMANDS],
    }
    for name, words in written.items():
        page = (REFERENCE / name).read_text("utf-8")
        assert [word for word in words if not re.search(rf"(`|\| ){word}\b", page)] == [], name


def test_the_vocabulary_is_short_and_every_term_has_its_source() -> None:
    text = (REFERENCE / "vocabulary.md").read_text("utf-8")
    terms = re.findall(r"^\| ([a-z][^|]*) \| ([^|]+) \| ([^|]+) \|$", text, re.MULTILINE)[1:]
    assert 30 <= len(terms) <= 40
    assert [term for term, _, _ in terms] == sorted(term for term, _, _ in terms)
    assert all(meaning.endswith(".") for _, meaning, _ in terms)


@pytest.mark.parametrize("page", TABLES)
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
    page = (REFERENCE / "bad-input.md").read_text("utf-8")
    for row in ROWS:
        assert f"| {row.number} | {row.what} |" in page
    for number in ELSEWHERE:
        assert f"| {number} |" in page
    assert page.isascii() or page.replace("\n", "").isprintable()
