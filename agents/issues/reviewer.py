"""Reviewer: how big and how risky a pull request is, and what a person should look at first.

GitHub's events carry counts but no list of files. Files are those that the event names: in review remarks, in texts,
and in a `files` list if a forwarder adds one. Without any the answer is 'unknown'; it is not guessed.
"""

import re

from mesh import agent

from .events import PullReviewed, PullTriaged, Risk, Size

SIZES: tuple[tuple[int, Size], ...] = ((10, "xs"), (50, "s"), (250, "m"), (1_000, "l"))
FILES_MANY = 20
TRUSTED = frozenset({"owner", "member", "collaborator"})

TESTS = re.compile(r"(?:^|/)(?:tests?|spec|__tests__)/|(?:^|/)test_|[._-](?:test|spec)s?\.|_test\.", re.IGNORECASE)
PROSE = re.compile(r"\.(?:md|rst|txt|adoc)$|(?:^|/)(?:docs?|LICENSE|CHANGELOG|README)(?:/|\.|$)", re.IGNORECASE)
DELICATE = {
    "the pipeline": re.compile(r"(?:^|/)\.github/workflows/|\.gitlab-ci|(?:^|/)Jenkinsfile|\.circleci/", re.IGNORECASE),
    "dependencies": re.compile(
        r"\.lock$|-lock\.(?:json|ya?ml)$|requirements[\w-]*\.txt|(?:^|/)(?:package|go\.sum|go\.mod)"
    ),
    "the database": re.compile(r"migrations?/|\.sql$|schema\.\w+$", re.IGNORECASE),
    "access control": re.compile(r"auth|login|passw|permission|crypto|secret|token|session", re.IGNORECASE),
    "deployment": re.compile(r"Dockerfile|docker-compose|\.tf$|helm/|k8s/|deploy", re.IGNORECASE),
}
BREAKING = re.compile(r"BREAKING[ -]CHANGE|^\w+(?:\([^)\n]{1,40}\))?!:", re.MULTILINE)
WANTS_TESTS = frozenset({"bug", "feature", "security"})


@agent
async def review(pull: PullTriaged) -> PullReviewed:
    """Weigh one pull request."""
    size = size_of(pull)
    tests = _tests(pull)
    touched = [what for what, pattern in DELICATE.items() if any(pattern.search(path) for path in pull.paths)]
    risk = _risk(pull, size, touched)
    return PullReviewed(
        size=size,
        risk=risk,
        tests=tests,
        approvals_needed={"high": 2, "medium": 1, "low": 1}[risk] if pull.open and not pull.draft else 0,
        remarks=_remarks(pull, size, tests, touched),
    )


def size_of(pull: PullTriaged) -> Size:
    """By changed lines; many files make it one class larger; 'unknown' where the event has no counts."""
    if pull.additions is None or pull.deletions is None:
        return "unknown"
    lines = pull.additions + pull.deletions
    sizes: list[Size] = [size for _, size in SIZES] + ["xl"]
    place = next((i for i, (lines_max, _) in enumerate(SIZES) if lines <= lines_max), len(SIZES))
    if (pull.changed_files or 0) > FILES_MANY:
        place = min(place + 1, len(SIZES))
    return sizes[place]


def _tests(pull: PullTriaged) -> str:
    """Missing is only said when every changed file is known."""
    if any(TESTS.search(path) for path in pull.paths):
        return "touched"
    if pull.changed_files is not None and 0 < pull.changed_files <= len(pull.paths):
        return "missing"
    return "unknown"


def _risk(pull: PullTriaged, size: Size, touched: list[str]) -> Risk:
    """Points for size, delicate places, strangers and breaking changes; prose alone is never risky."""
    if pull.paths and len(pull.paths) == pull.changed_files and all(PROSE.search(path) for path in pull.paths):
        return "low"
    points = {"xs": 0, "s": 0, "unknown": 1, "m": 1, "l": 2, "xl": 3}[size]
    points += 2 * min(2, len(touched))
    points += 2 * bool(BREAKING.search(f"{pull.title}\n{pull.body}"))
    points += pull.kind == "security"
    points += pull.association not in TRUSTED and not pull.author_is_bot
    points += bool(pull.base) and bool(pull.default_branch) and pull.base.startswith(("release", "stable", "hotfix"))
    return "high" if points >= 4 else "medium" if points >= 2 else "low"


def _remarks(pull: PullTriaged, size: Size, tests: str, touched: list[str]) -> list[str]:
    remarks = [f"Changes {what}." for what in touched]
    if size == "xl":
        remarks.append(f"Large: {pull.additions} lines added, {pull.deletions} removed. Could it come in parts?")
    if size == "unknown":
        remarks.append("This event does not tell how many lines change.")
    if tests == "missing" and pull.kind in WANTS_TESTS:
        remarks.append("No test changes with the code.")
    if not pull.body:
        remarks.append("The description is empty: what changes, and why?")
    if BREAKING.search(f"{pull.title}\n{pull.body}"):
        remarks.append("Breaking change: is there a note on how to migrate?")
    if pull.base and pull.default_branch and pull.base != pull.default_branch:
        remarks.append(f"Goes to `{pull.base}`, not to `{pull.default_branch}`.")
    if pull.from_fork and pull.association not in TRUSTED and not pull.author_is_bot:
        remarks.append("From a fork of a new contributor: workflows need approval.")
    if pull.review_state in ("changes_requested", "dismissed"):
        remarks.append("A review was dismissed." if pull.review_state == "dismissed" else "Changes were requested.")
    return remarks
