from typing import Any

import orjson
import pytest

from agents.issues.events import UNDATED, Webhook, day_of, team_of
from mesh.app.wiring import load_topology
from mesh.core.ingress.admission import admit
from mesh.core.protocol.event import Event
from mesh.core.protocol.record import StoredRecord
from tests.agents.walk import PROJECT, TOPICS


@pytest.mark.parametrize(
    ("value", "day"),
    [
        ("2024-05-06T08:00:00Z", "2024-05-06"),
        ("2021-08-19T22:16:32.000-04:00", "2021-08-20"),
        ("2024-05-06", "2024-05-06"),
        (1_557_933_500, "2019-05-15"),
        ("yesterday", UNDATED),
        ("0001-01-01T00:00:00+14:00", UNDATED),
        ("9999-12-31T23:59:59-14:00", UNDATED),
        (10**30, UNDATED),
        (-5, UNDATED),
        (True, UNDATED),
        (None, UNDATED),
        ([], UNDATED),
    ],
)
def test_a_day_is_utc_and_anything_else_is_undated(value: Any, day: str) -> None:
    assert day_of(value) == day


def test_the_day_of_a_webhook_is_that_of_the_newest_thing_in_it() -> None:
    body = {
        "issue": {"updated_at": "2024-05-01T00:00:00Z"},
        "comment": {"created_at": "2024-05-03T00:00:00Z"},
        "repository": {"updated_at": "2020-01-01T00:00:00Z"},
    }
    assert Webhook(event="issue_comment", payload=body).day == "2024-05-03"


def test_the_day_falls_back_to_the_repository_and_then_to_undated() -> None:
    assert Webhook(event="label", payload={"repository": {"updated_at": "2020-01-01T00:00:00Z"}}).day == "2020-01-01"
    sale = {"effective_date": "2017-10-25T00:00:00+00:00", "marketplace_purchase": {"plan": None}}
    assert Webhook(event="marketplace_purchase", payload=sale).day == "2017-10-25"
    assert Webhook(event="label", payload={}).day == UNDATED


@pytest.mark.parametrize(
    ("body", "name"),
    [
        ({"repository": {"full_name": "brewlab/teapot"}}, "brewlab/teapot"),
        ({"repository": {"name": "teapot", "owner": {"login": "brewlab"}}}, "brewlab/teapot"),
        ({"repository": {"name": "teapot", "owner": None}}, "teapot"),
        ({"repository": None, "organization": {"login": "brewlab"}}, "brewlab"),
        ({"sender": {"login": "mira"}}, "mira"),
        ({"repository": {"full_name": "brew lab/té*pot"}}, "brew-lab/t-pot"),
        ({"repository": {"full_name": "💥"}}, "unknown"),
        ({}, "unknown"),
        (None, "unknown"),
        ([1, 2], "unknown"),
    ],
)
def test_the_repository_is_always_a_usable_name(body: Any, name: str) -> None:
    assert Webhook(payload=body).repository == name


def test_reading_what_is_not_there_gives_empty_values() -> None:
    webhook = Webhook(event=5, action=["x"], payload={"a": {"b": 1.5}, "n": -1, "big": 10**40, "yes": 1, "no": True})
    assert webhook.kind_of_event == "unknown"
    assert webhook.kind_of_action == ""
    assert webhook.obj("a", "b") == {}
    assert webhook.text("a") == ""
    assert webhook.items("a") == []
    assert [webhook.number(*path) for path in (("a", "b"), ("n",), ("big",), ("no",))] == [None] * 4
    assert webhook.flag("yes") is False


def test_texts_are_cut() -> None:
    assert Webhook(payload={"t": "x" * 1_000}).text("t", chars_max=10) == "x" * 10


def test_an_area_without_a_team_goes_to_the_maintainers() -> None:
    assert team_of("ui") == "frontend"
    assert team_of("brewing") == "maintainers"


def test_raw_webhooks_are_what_their_samples_say() -> None:
    """A record with the body as GitHub sends it, and its two headers."""
    mesh = load_topology(str(TOPICS))
    samples = (PROJECT / "agents" / "samples" / "github-webhooks.jsonl").read_bytes().splitlines()
    for n, sample in enumerate(map(orjson.loads, samples)):
        headers = [("X-GitHub-Event", sample["event"].encode()), ("X-GitHub-Delivery", b"d-%d" % n)]
        raw = StoredRecord("github.webhooks", 0, n, 1, None, orjson.dumps(sample["payload"]), headers)
        request = admit(raw, mesh)
        assert isinstance(request, Event)
        webhook = Webhook.model_validate_json(request.data)
        assert (request.id, webhook.event, webhook.payload) == (f"d-{n}", sample["event"], sample["payload"])
