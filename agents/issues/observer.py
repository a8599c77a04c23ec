"""Observer: notes any webhook besides issues and pull requests: its kind, its importance, the team it concerns.

GitHub has more than 70 kinds of events and adds some every year. Kinds that are not listed here are noted by the same
rules, as `info` unless the body reports a failure.
"""

from collections.abc import Mapping
from typing import Any

from mesh import agent

from .events import UNKNOWN, EventNoted, Importance, Webhook, team_of

SUMMARY_CHARS_MAX = 300
HEADLINE_CHARS_MAX = 120

AREAS: Mapping[str, str] = {
    **dict.fromkeys(
        ("check_run", "check_suite", "status", "workflow_dispatch", "workflow_job", "workflow_run", "merge_group"), "ci"
    ),
    **dict.fromkeys(
        ("deployment", "deployment_protection_rule", "deployment_review", "deployment_status", "page_build", "release"),
        "release",
    ),
    **dict.fromkeys(("package", "registry_package"), "release"),
    **dict.fromkeys(
        (
            "branch_protection_configuration", "branch_protection_rule", "code_scanning_alert", "dependabot_alert",
            "deploy_key", "repository_advisory", "repository_ruleset", "repository_vulnerability_alert",
            "secret_scanning_alert", "secret_scanning_alert_location", "security_advisory", "security_and_analysis",
        ),
        "security",
    ),
    **dict.fromkeys(
        (
            "github_app_authorization", "installation", "installation_repositories", "installation_target", "member",
            "membership", "org_block", "organization", "personal_access_token_request", "team", "team_add", "user",
        ),
        "people",
    ),
    **dict.fromkeys(("create", "delete", "fork", "public", "push", "repository", "repository_import"), "code"),
    **dict.fromkeys(
        (
            "label", "milestone", "project", "project_card", "project_column", "projects_v2", "projects_v2_item",
            "sub_issues", "issue_dependencies",
        ),
        "planning",
    ),
    **dict.fromkeys(("gollum",), "docs"),
    **dict.fromkeys(("marketplace_purchase", "sponsorship"), "billing"),
    **dict.fromkeys(("star", "watch"), "community"),
}  # fmt: skip
TEAMS_OF_AREAS: Mapping[str, str] = {"release": "platform", "people": "administrators", "billing": "administrators"}

ALERTS = frozenset(
    {"code_scanning_alert", "dependabot_alert", "repository_vulnerability_alert", "secret_scanning_alert"}
    | {"security_advisory", "repository_advisory", "secret_scanning_alert_location"}
)
SETTLED = frozenset(
    {"dismiss", "dismissed", "resolve", "resolved", "fixed", "auto_dismissed", "closed_by_user", "withdrawn"}
)
BAD_RESULTS = frozenset({"failure", "error", "errored", "timed_out", "startup_failure", "action_required"})
RESULT_PLACES = (
    ("check_run", "conclusion"),
    ("check_suite", "conclusion"),
    ("workflow_run", "conclusion"),
    ("workflow_job", "conclusion"),
    ("deployment_status", "state"),
    ("build", "status"),
    ("status",),
    ("state",),
)
NOTABLE: Mapping[str, frozenset[str]] = {
    "branch_protection_rule": frozenset({"deleted", "edited"}),
    "deploy_key": frozenset({"created"}),
    "github_app_authorization": frozenset({"revoked"}),
    "installation": frozenset({"created", "deleted", "suspend", "new_permissions_accepted"}),
    "marketplace_purchase": frozenset({"cancelled", "changed", "purchased"}),
    "member": frozenset({"added", "edited", "removed"}),
    "membership": frozenset({"removed"}),
    "org_block": frozenset({"blocked", "unblocked"}),
    "organization": frozenset({"deleted", "member_added", "member_invited", "member_removed", "renamed"}),
    "release": frozenset({"deleted", "published"}),
    "repository": frozenset({"archived", "deleted", "privatized", "publicized", "renamed", "transferred"}),
    "sponsorship": frozenset({"cancelled", "pending_cancellation", "pending_tier_change"}),
    "team": frozenset({"added_to_repository", "deleted", "edited"}),
}
HEADLINES = (
    "title", "summary", "display_title", "name", "tag_name", "description", "note", "login", "slug", "environment",
    "full_name", "affected_package_name", "head_branch", "ref", "content_type",
)  # fmt: skip


@agent
async def observe(webhook: Webhook) -> EventNoted:
    """Note one event. A missing field counts as empty."""
    event, action = webhook.kind_of_event, webhook.kind_of_action
    area = AREAS.get(event, "other")
    sender = webhook.text("sender", "login") or webhook.text("pusher", "name") or UNKNOWN
    headline = _headline(webhook)
    result = next((text for place in RESULT_PLACES if (text := webhook.text(*place))), "")
    what = " ".join(word for word in (event, action, f"({result})" if result and result != action else "") if word)
    summary = f"{what} in {webhook.repository} by {sender}" + (f": {headline}" if headline else "")
    return EventNoted(
        event=event,
        action=action,
        repository=webhook.repository,
        sender=sender,
        area=area,
        importance=importance_of(webhook),
        team=TEAMS_OF_AREAS.get(area) or team_of(area),
        summary=summary[:SUMMARY_CHARS_MAX],
        day=webhook.day,
    )


def importance_of(webhook: Webhook) -> Importance:
    """Return the importance: open security findings first, then failures, then changes that people must know."""
    event, action = webhook.kind_of_event, webhook.kind_of_action
    if event in ALERTS:
        return "info" if action in SETTLED else "critical" if _severity(webhook) in ("critical", "high") else "warning"
    if any(webhook.text(*place) in BAD_RESULTS for place in RESULT_PLACES):
        return "warning"
    if event == "public" or (event == "repository" and action in ("deleted", "publicized")):
        return "warning"
    if event == "push" and webhook.flag("forced"):
        return "warning" if _on_default_branch(webhook) else "notice"
    if event == "delete" and _on_default_branch(webhook):
        return "warning"
    return "notice" if action in NOTABLE.get(event, ()) else "info"


def _severity(webhook: Webhook) -> str:
    """The severity GitHub gives an alert, wherever this kind of alert has it."""
    places = (
        ("security_advisory", "severity"),
        ("repository_advisory", "severity"),
        ("alert", "security_advisory", "severity"),
        ("alert", "security_vulnerability", "severity"),
        ("alert", "rule", "security_severity_level"),
        ("alert", "severity"),
        ("alert", "rule", "severity"),
    )
    found = next((text for place in places if (text := webhook.text(*place).lower())), "")
    if webhook.kind_of_event.startswith("secret_scanning"):
        return "critical"
    return "high" if found == "error" else found


def _on_default_branch(webhook: Webhook) -> bool:
    default = webhook.text("repository", "default_branch") or webhook.text("repository", "master_branch")
    return bool(default) and webhook.text("ref").removeprefix("refs/heads/") == default


def _headline(webhook: Webhook) -> str:
    """The most telling short text of the thing that the event is about, on one line."""
    event = webhook.kind_of_event
    pages = [page for page in webhook.items("pages") if isinstance(page, dict)]
    paths: list[tuple[str, ...]] = [
        ("alert", "rule"), ("alert", "security_advisory"), ("alert",), ("membership", "user"), ("invitation",),
        ("member",), ("blocked_user",), (event,), ("rule",), ("head_commit",), ("forkee",), ("team",), ("user",),
        ("deployment",), ("build",), ("marketplace_purchase", "plan"),
    ]  # fmt: skip
    places: list[dict[str, Any]] = [*(webhook.obj(*path) for path in paths), *pages[:1]]
    texts = [place.get(field) for place in places for field in (*HEADLINES, "message")]
    texts += [webhook.at(field) for field in ("zen", "ref", "context", "workflow", "environment")]
    found = next((text for text in texts if isinstance(text, str) and text.strip()), "")
    return " ".join(found.split())[:HEADLINE_CHARS_MAX]
