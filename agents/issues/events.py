"""Payloads of the issues example app. Its agents share no other file.

Every text has a limit, so that no payload outgrows 128 KiB whatever GitHub sends. Scores and confidences lie in 0..1.
"""

import re
from datetime import UTC, datetime
from typing import Any, Literal

from pydantic import ConfigDict

from mesh import Payload

TITLE_CHARS_MAX = 300
TEXT_CHARS_MAX = 8_000
NAME_CHARS_MAX = 140

Kind = Literal["bug", "feature", "question", "docs", "chore", "security", "other"]
Severity = Literal["critical", "high", "medium", "low"]
Importance = Literal["critical", "warning", "notice", "info"]
Size = Literal["unknown", "xs", "s", "m", "l", "xl"]
Risk = Literal["high", "medium", "low"]

UNDATED = "undated"
UNKNOWN = "unknown"

_TIMES = (
    "updated_at",
    "submitted_at",
    "created_at",
    "published_at",
    "completed_at",
    "timestamp",
    "starred_at",
    "since",
    "effective_date",
)
_PLACES = ("comment", "answer", "review", "thread", "issue", "pull_request", "discussion")
_LATER_PLACES = ("alert", "hook", "build", "commit", "head_commit", "forkee", "repository", "enterprise")
_UNSAFE = re.compile(r"[^A-Za-z0-9._/-]+")


class Webhook(Payload, type="github.webhook"):
    """One delivery of GitHub: `event` is the X-GitHub-Event header, `payload` the body as GitHub sent it.

    Any field may be missing, null or of another kind than documented. All are therefore read through `obj`, `text`,
    `number`, `items` and `flag`, which return an empty value for an absent one.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")
    name: Any = None
    event: Any = None
    action: Any = None
    payload: Any = None

    def at(self, *path: str) -> Any:
        """Return the value at a path of field names in the body; None if the path ends early."""
        value = self.payload
        for step in path:
            value = value.get(step) if isinstance(value, dict) else None
        return value

    def obj(self, *path: str) -> dict[str, Any]:
        """Return the object there, or {}."""
        value = self.at(*path)
        return value if isinstance(value, dict) else {}

    def items(self, *path: str) -> list[Any]:
        """Return the list there, or []."""
        value = self.at(*path)
        return value if isinstance(value, list) else []

    def text(self, *path: str, chars_max: int = NAME_CHARS_MAX) -> str:
        """Return the string there without surrounding blanks, cut to `chars_max`, or ''."""
        value = self.at(*path)
        return value.strip()[:chars_max] if isinstance(value, str) else ""

    def number(self, *path: str) -> int | None:
        """Return the whole number there if it is one from 0 to 10^12, or None."""
        value = self.at(*path)
        return value if type(value) is int and 0 <= value <= 10**12 else None

    def flag(self, *path: str) -> bool:
        """Return whether the value there is `true`."""
        return self.at(*path) is True

    @property
    def kind_of_event(self) -> str:
        """The event's name, or 'unknown'."""
        return self.event.strip()[:NAME_CHARS_MAX] or UNKNOWN if isinstance(self.event, str) else UNKNOWN

    @property
    def kind_of_action(self) -> str:
        """The action: of the body, else of the envelope; '' for events without one."""
        return self.text("action") or (self.action.strip()[:NAME_CHARS_MAX] if isinstance(self.action, str) else "")

    @property
    def repository(self) -> str:
        """`owner/name`; the account where the event concerns no repository; 'unknown' where it names neither."""
        owner, name = self.text("repository", "owner", "login"), self.text("repository", "name")
        found = (
            self.text("repository", "full_name")
            or (f"{owner}/{name}" if owner and name else name)
            or self.text("organization", "login")
            or self.text("installation", "account", "login")
            or self.text("enterprise", "slug")
            or self.text("sender", "login")
        )
        return _UNSAFE.sub("-", found)[:NAME_CHARS_MAX].strip("-") or UNKNOWN

    @property
    def day(self) -> str:
        """The UTC day of the event, `YYYY-MM-DD`, as the body gives it; 'undated' if it gives none."""
        for place in (*_PLACES, self.kind_of_event, "", *_LATER_PLACES):
            holder = self.obj(place) if place else self.obj()
            for field in _TIMES:
                day = day_of(holder.get(field))
                if day != UNDATED:
                    return day
        return UNDATED


def day_of(value: Any) -> str:
    """The UTC day of an ISO 8601 text or of seconds since the epoch; 'undated' for anything else."""
    try:
        if isinstance(value, str):
            moment = datetime.fromisoformat(value.strip())
        elif type(value) is int and value > 0:
            moment = datetime.fromtimestamp(value, UTC)
        else:
            return UNDATED
        return (moment if moment.tzinfo is None else moment.astimezone(UTC)).date().isoformat()
    except (ValueError, OverflowError, OSError):
        return UNDATED


class Item(Payload):
    """The result of triage for an issue, a discussion, a comment or a pull request."""

    item: str
    """Its name for people and for keys: `owner/name#12`, `owner/name/discussions/4`, `owner/name@1a2b3c`."""
    repository: str
    event: str
    action: str
    number: int
    title: str
    body: str
    """The text of the issue, discussion or pull request itself."""
    comment: str
    """The text of the comment or review that this event brings; '' if it brings none."""
    author: str
    """The author of the text that this event brings."""
    author_is_bot: bool
    association: str
    """GitHub's author_association in lower case: owner, member, collaborator, contributor, none …"""
    url: str
    labels: list[str]
    kind: Kind
    kind_confidence: float
    area: str
    severity: Severity
    language: str
    """Natural language as ISO 639-1, 'und' when undetermined."""
    code_language: str
    created_at: str
    day: str

    @property
    def said(self) -> str:
        """The text that this event brings: the comment if there is one, else title and body."""
        return self.comment or f"{self.title}\n{self.body}".strip()


class IssueTriaged(Item, type="issue.triaged"):
    """An issue, a discussion, or a comment on one of them or on a commit."""


class PullTriaged(Item, type="pr.triaged"):
    """A pull request, a review of one, or a remark in a review. None where this kind of event does not say."""

    draft: bool
    merged: bool
    open: bool
    additions: int | None
    deletions: int | None
    changed_files: int | None
    head: str
    base: str
    default_branch: str
    paths: list[str]
    """Files known from the event: those it lists, those its texts name. GitHub does not send all."""
    review_state: str
    from_fork: bool


class Screening(Payload):
    """The result of the spam check."""

    score: float
    signals: list[str]


class IssueScreened(Screening, type="issue.screened"):
    """Spam and abuse score of an issue or a comment."""


class PullScreened(Screening, type="pr.screened"):
    """Spam and abuse score of a pull request."""


class IssueCompared(Payload, type="issue.compared"):
    """The text's fingerprint, and where on the board its look-alikes are listed. See duplicates.py."""

    fingerprint: str
    comparable: bool
    lookalikes_key: str


class PullReviewed(Payload, type="pr.reviewed"):
    """Size, risk and remarks on a pull request. `tests`: whether tests are touched, as far as the event tells."""

    size: Size
    risk: Risk
    tests: Literal["touched", "missing", "unknown"]
    approvals_needed: int
    remarks: list[str]


class Routed(Payload):
    """The team and queue of a thing, the confidence in that choice, and the reasons."""

    item: str
    repository: str
    event: str
    action: str
    title: str
    url: str
    day: str
    kind: Kind
    area: str
    severity: Severity
    team: str
    confidence: float
    reasons: list[str]


class IssueRouted(Routed, type="issue.routed"):
    """An issue or comment found its team."""

    queue: Literal["urgent", "normal", "backlog", "moderation"]
    author: str
    author_is_bot: bool
    language: str
    code_language: str
    missing: list[str]
    """The parts that a bug report lacks: steps, version, expected."""
    fingerprint: str
    lookalikes_key: str


class PullRouted(Routed, type="pr.routed"):
    """A pull request found its reviewers."""

    queue: Literal["review", "waiting", "done", "moderation"]
    size: Size
    risk: Risk
    tests: str
    approvals_needed: int
    remarks: list[str]


class NeedsHuman(Routed, type="needs.human"):
    """A thing for a person to decide. `team` is the best guess."""


class ReplyDrafted(Payload, type="reply.drafted"):
    """A first answer for a person to send or to change."""

    item: str
    url: str
    language: str
    text: str


class EventNoted(Payload, type="event.noted"):
    """Any other event of GitHub: its kind, its importance, the team that it concerns."""

    event: str
    action: str
    repository: str
    sender: str
    area: str
    importance: Importance
    team: str
    summary: str
    day: str


TEAMS = {
    "api": "backend",
    "auth": "security",
    "build": "platform",
    "ci": "platform",
    "data": "backend",
    "dependencies": "platform",
    "docs": "docs",
    "performance": "backend",
    "security": "security",
    "tests": "quality",
    "ui": "frontend",
}
"""Area → team. An area that is not here goes to the maintainers."""


def team_of(area: str) -> str:
    """Return the team of an area."""
    return TEAMS.get(area, "maintainers")
