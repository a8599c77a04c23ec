"""Webhooks for tests, as small as the test allows."""

from typing import Any

from agents.issues.events import IssueTriaged, PullTriaged, Webhook
from agents.issues.triage import triage

REPOSITORY = {"full_name": "brewlab/teapot", "default_branch": "main", "language": "Python"}


def issue(title: str = "", body: str | None = "", *, number: int = 1, action: str = "opened", **fields: Any) -> Webhook:
    """An `issues` event. `labels` are names; other fields go into the issue."""
    labels = [{"name": name} for name in fields.pop("labels", ())]
    created_at = fields.pop("created_at", "2024-05-06T08:00:00Z")
    thing = {"number": number, "title": title, "body": body, "labels": labels, "created_at": created_at, **fields}
    thing.setdefault("user", {"login": "mira", "type": "User"})
    return Webhook(event="issues", action=action, payload={"action": action, "issue": thing, "repository": REPOSITORY})


def pull(title: str = "", body: str | None = "", *, action: str = "opened", **fields: Any) -> Webhook:
    """A `pull_request` event; fields go into the pull request."""
    thing = {"number": 7, "title": title, "body": body, "state": "open", "user": {"login": "ada"}, **fields}
    payload = {"action": action, "pull_request": thing, "repository": REPOSITORY}
    return Webhook(event="pull_request", action=action, payload=payload)


async def triaged_issue(*args: Any, **kwargs: Any) -> IssueTriaged:
    """Return triage's answer to `issue(…)`."""
    found = await triage(issue(*args, **kwargs))
    assert isinstance(found, IssueTriaged)
    return found


async def triaged_pull(*args: Any, **kwargs: Any) -> PullTriaged:
    """Return triage's answer to `pull(…)`."""
    found = await triage(pull(*args, **kwargs))
    assert isinstance(found, PullTriaged)
    return found
