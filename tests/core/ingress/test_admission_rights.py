"""The right to write to an ingress topic covers events of its type: other attempts are rejected."""

import pytest

from mesh.core.errors import TopologyInvalid
from mesh.core.ingress.admission import admit, open_request
from mesh.core.ingress.request_formats import Rejection, Request
from mesh.core.protocol.event import Event, run_id_of
from mesh.core.topology.loader import load
from tests.core.doors import TOPOLOGY, binary, record, refused, structured, taken

VICTIM = run_id_of("/topics/orders.placed", "o-1")


def hook(**attributes: str) -> Event | Rejection:
    """A CloudEvent on the topic of webhooks, which does not say `join: true`."""
    given = {"id": "e-1", "source": "/evil", "type": "github.webhook", **attributes}
    return admit(binary(b"{}", **given)._replace(topic="github.webhooks"), TOPOLOGY)


def rejected(**attributes: str) -> Rejection:
    found = hook(**attributes)
    assert isinstance(found, Rejection), found
    return found


def test_the_type_of_another_topic_is_refused_in_both_modes() -> None:
    for door in (binary(source="/evil"), structured(source="/evil")):
        found = refused(door._replace(topic="github.webhooks"))
        assert found.code == "wrong_topic"
        assert found.message == (
            "type 'order.placed' comes in by topic orders.placed, not by github.webhooks, which takes 'github.webhook'"
        )


@pytest.mark.parametrize("source", ["/topics/orders.placed", "/agents/pricing", "/mesh/desk", "/runs/r-1"])
def test_a_source_of_the_mesh_is_rejected_without_an_answer_under_its_run(source: str) -> None:
    found = rejected(source=source)
    assert found.code == "forged_source"
    assert found.run_id != run_id_of(source, "e-1")


def test_the_name_of_the_topic_itself_is_what_plain_json_from_there_bears() -> None:
    found = hook(source="/topics/github.webhooks")
    assert isinstance(found, Event)
    assert found.run_id == run_id_of("/topics/github.webhooks", "e-1")


@pytest.mark.parametrize("run", [VICTIM, "k0a1b2c3d4e5f:o-1", "run-7"])
def test_a_run_that_a_record_names_is_not_joined_and_not_answered(run: str) -> None:
    for found in (
        hook(correlationid=run),
        admit(record([("ce_correlationid", run.encode())], b"{}", topic="github.webhooks"), TOPOLOGY),
        hook(correlationid=run, expirytime="tomorrow"),
        hook(correlationid=run, type="order.placed"),
    ):
        assert isinstance(found, Rejection)
        assert found.run_id != run
    assert rejected(correlationid=run).code == "foreign_run"
    assert "join: true" in rejected(correlationid=run).message


def test_the_run_that_a_request_opens_anyway_may_be_named() -> None:
    opened = hook()
    assert isinstance(opened, Event)
    assert hook(correlationid=opened.run_id) == opened


def test_a_topic_that_says_join_takes_correlation_ids_and_events_of_the_agents_of_another_mesh() -> None:
    assert taken(binary(correlationid="run-7", source="/agents/pricing")).run_id == "run-7"
    for source in ("/topics/github.webhooks", "/mesh/desk", "/runs/r-1"):
        assert refused(binary(source=source)).code == "forged_source"


def test_a_source_claimed_on_another_topic_does_not_open_the_run_of_its_owner() -> None:
    """Both are CloudEvents of `/shop` with one id, and only one of them comes from the shop."""
    ours, theirs = taken(binary(source="/shop", id="e-1")), hook(source="/shop")
    assert isinstance(theirs, Event)
    assert ours.run_id != theirs.run_id
    assert ours.run_id == taken(structured(source="/shop", id="e-1")).run_id


def test_a_client_that_writes_to_the_inbox_itself_may_join_any_run() -> None:
    found = open_request(Request("github.webhook", b"{}", run_id=VICTIM), TOPOLOGY, fallback_id="f")
    assert isinstance(found, Event)
    assert found.run_id == VICTIM


def test_the_request_of_a_plain_record_cannot_be_begun_from_another_topic() -> None:
    """The id and the source of plain JSON are predictable, which once allowed taking over the run of an order."""
    assert taken(record()).run_id == VICTIM
    forged = binary(source="/topics/orders.placed", type="github.webhook")._replace(topic="github.webhooks")
    assert refused(forged).run_id != VICTIM
    assert refused(binary(source="/topics/orders.placed")._replace(topic="github.webhooks")).run_id != VICTIM


MESH = """
mesh: {name: t}
topics: {in: {ingress: a, partitions: 1%s}, out: {egress: b, partitions: 1%s}}
agents: {x: {run: "x:y", on: a, emits: b}}
"""


def test_join_is_said_of_an_ingress_topic_and_is_no_part_of_the_digest() -> None:
    plain, joined = load(MESH % ("", "")), load(MESH % (", join: true", ""))
    assert (plain.topics["in"].join, joined.topics["in"].join) == (False, True)
    assert plain.digest == joined.digest
    with pytest.raises(TopologyInvalid, match=r"out\.join: only records of an ingress topic join runs"):
        load(MESH % ("", ", join: true"))
