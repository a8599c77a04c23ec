from typing import Any

import pytest

from agents.issues.reviewer import review
from tests.agents.issues.webhooks import triaged_pull


@pytest.mark.parametrize(
    ("additions", "deletions", "files", "size"),
    [
        (1, 1, 1, "xs"),
        (30, 5, 2, "s"),
        (200, 50, 5, "m"),
        (200, 50, 50, "l"),
        (900, 0, 3, "l"),
        (5_000, 0, 3, "xl"),
        (5_000, 0, 300, "xl"),
        (None, 3, 1, "unknown"),
        (3, None, None, "unknown"),
    ],
)
async def test_the_size_follows_lines_and_files(
    additions: int | None, deletions: int | None, files: int | None, size: str
) -> None:
    found = await review(await triaged_pull(additions=additions, deletions=deletions, changed_files=files))
    assert found.size == size


@pytest.mark.parametrize(
    ("paths", "changed_files", "tests"),
    [
        (["mesh/a.py", "tests/test_a.py"], 2, "touched"),
        (["pkg/a_test.go"], 9, "touched"),
        (["src/a.spec.ts"], None, "touched"),
        (["mesh/a.py"], 1, "missing"),
        (["mesh/a.py"], 3, "unknown"),
        (["latest/a.py"], 1, "missing"),
        ([], 0, "unknown"),
    ],
)
async def test_tests_are_missing_only_when_all_files_are_known(
    paths: list[str], changed_files: int | None, tests: str
) -> None:
    files = [{"filename": path} for path in paths]
    assert (await review(await triaged_pull(files=files, changed_files=changed_files))).tests == tests


async def pull(**fields: Any) -> Any:
    fields = {"additions": 5, "deletions": 0, "changed_files": 1, "author_association": "MEMBER", **fields}
    return await triaged_pull(fields.pop("title", "x"), fields.pop("body", "why"), **fields)


async def test_prose_is_never_risky() -> None:
    found = await review(await pull(additions=9_000, files=[{"filename": "docs/all.md"}]))
    assert (found.size, found.risk) == ("xl", "low")


async def test_risk_grows_with_delicate_files_strangers_and_breaking_changes() -> None:
    calm = await review(await pull())
    stranger = await review(await pull(author_association="NONE", files=[{"filename": "auth/login.py"}]))
    breaking = await review(await pull(title="feat!: new auth", files=[{"filename": ".github/workflows/ci.yml"}]))
    assert [r.risk for r in (calm, stranger, breaking)] == ["low", "medium", "high"]
    assert "Changes the pipeline." in breaking.remarks
    assert [r.approvals_needed for r in (calm, breaking)] == [1, 2]


async def test_drafts_and_closed_ones_need_no_approval() -> None:
    assert (await review(await pull(draft=True))).approvals_needed == 0
    assert (await review(await pull(state="closed"))).approvals_needed == 0


@pytest.mark.parametrize(
    ("fields", "remark"),
    [
        ({"body": ""}, "The description is empty: what changes, and why?"),
        ({"additions": None}, "This event does not tell how many lines change."),
        ({"additions": 2_000}, "Large: 2000 lines added, 0 removed. Could it come in parts?"),
        ({"title": "fix: crash", "files": [{"filename": "a.py"}]}, "No test changes with the code."),
        ({"base": {"ref": "release-2"}}, "Goes to `release-2`, not to `main`."),
        (
            {"head": {"repo": {"fork": True}}, "author_association": "NONE"},
            "From a fork of a new contributor: workflows need approval.",
        ),
    ],
)
async def test_remarks_name_what_to_look_at(fields: dict[str, Any], remark: str) -> None:
    assert remark in (await review(await pull(**fields))).remarks
