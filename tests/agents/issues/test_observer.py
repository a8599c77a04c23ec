from typing import Any

import pytest

from agents.issues.events import Webhook
from agents.issues.observer import SUMMARY_CHARS_MAX, observe

REPOSITORY = {"full_name": "brewlab/teapot", "default_branch": "main"}


def webhook(event: str, action: str | None = None, **body: Any) -> Webhook:
    payload = {"repository": REPOSITORY, "sender": {"login": "ada"}, **body}
    return Webhook(event=event, action=action, payload=payload | ({"action": action} if action else {}))


@pytest.mark.parametrize(
    ("event", "importance", "area"),
    [
        (
            webhook("dependabot_alert", "created", alert={"security_advisory": {"severity": "high"}}),
            "critical",
            "security",
        ),
        (
            webhook("dependabot_alert", "created", alert={"security_advisory": {"severity": "low"}}),
            "warning",
            "security",
        ),
        (
            webhook("dependabot_alert", "dismissed", alert={"security_advisory": {"severity": "high"}}),
            "info",
            "security",
        ),
        (webhook("secret_scanning_alert", "created", alert={}), "critical", "security"),
        (webhook("code_scanning_alert", "created", alert={"rule": {"severity": "error"}}), "critical", "security"),
        (webhook("workflow_run", "completed", workflow_run={"conclusion": "failure"}), "warning", "ci"),
        (webhook("workflow_run", "completed", workflow_run={"conclusion": "success"}), "info", "ci"),
        (webhook("status", state="error"), "warning", "ci"),
        (webhook("deployment_status", state=None, deployment_status={"state": "failure"}), "warning", "release"),
        (webhook("push", forced=True, ref="refs/heads/main"), "warning", "code"),
        (webhook("push", forced=True, ref="refs/heads/topic"), "notice", "code"),
        (webhook("push", forced=False, ref="refs/heads/main"), "info", "code"),
        (webhook("delete", ref="main", ref_type="branch"), "warning", "code"),
        (webhook("repository", "publicized"), "warning", "code"),
        (webhook("repository", "renamed"), "notice", "code"),
        (webhook("public"), "warning", "code"),
        (webhook("star", "created"), "info", "community"),
        (webhook("an_event_of_next_year", "happened"), "info", "other"),
    ],
    ids=lambda value: f"{value.event}-{value.action}" if isinstance(value, Webhook) else None,
)
async def test_importance_and_area_follow_the_event(event: Webhook, importance: str, area: str) -> None:
    noted = await observe(event)
    assert (noted.importance, noted.area) == (importance, area)


async def test_the_summary_names_the_actor_the_action_the_place_and_the_object() -> None:
    noted = await observe(webhook("milestone", "closed", milestone={"title": "v1.0"}))
    assert noted.summary == "milestone closed in brewlab/teapot by ada: v1.0"
    assert noted.team == "maintainers"


@pytest.mark.parametrize(
    ("event", "summary"),
    [
        (
            webhook("check_run", "completed", check_run={"name": "lint", "conclusion": "failure"}),
            "check_run completed (failure) in brewlab/teapot by ada: lint",
        ),
        (
            webhook("dependabot_alert", "created", alert={"security_advisory": {"summary": "RCE in steamlib"}}),
            "dependabot_alert created in brewlab/teapot by ada: RCE in steamlib",
        ),
        (
            webhook("membership", "added", member={"login": "sol"}, team={"name": "brewers"}),
            "membership added in brewlab/teapot by ada: sol",
        ),
        (webhook("status", state="pending", context="ci/x"), "status (pending) in brewlab/teapot by ada: ci/x"),
    ],
)
async def test_the_summary_names_result_and_thing(event: Webhook, summary: str) -> None:
    assert (await observe(event)).summary == summary


async def test_the_summary_is_one_line_of_limited_length() -> None:
    noted = await observe(webhook("release", "published", release={"name": "a\nb\t" + "x" * 1_000}))
    assert "\n" not in noted.summary
    assert len(noted.summary) <= SUMMARY_CHARS_MAX


@pytest.mark.parametrize("payload", [None, [], "x", 5, {}, {"alert": []}, {"sender": None, "repository": 5}])
@pytest.mark.parametrize("event", [None, "", 5, "dependabot_alert", "push", "gollum"])
async def test_anything_can_be_noted(event: Any, payload: Any) -> None:
    noted = await observe(Webhook(event=event, payload=payload))
    assert noted.repository == "unknown"
    assert noted.sender == "unknown"
