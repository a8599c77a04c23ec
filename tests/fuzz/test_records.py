"""Whatever lies on a topic is answered with an event or with a reason; nothing raises."""

from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from mesh.core.errors import InvalidInput
from mesh.core.ingress.admission import admit
from mesh.core.ingress.request_formats import Rejection
from mesh.core.protocol.cloudevents_json import STRUCTURED, unwrap
from mesh.core.protocol.codec import Unreadable, event_headers, read_event
from mesh.core.protocol.event import Event
from mesh.core.protocol.json_check import Flaw, parse_strict
from mesh.core.protocol.record import NewRecord, StoredRecord
from mesh.core.publishing.effect_records import dead_letter, record_of
from mesh.core.publishing.replacement_records import replacement_of
from mesh.core.reason_codes import REASONS
from mesh.core.run.dead_letter import dead_record
from mesh.core.run.effects import DeadLetter, Finish, Note, PublishEvent, PublishTask
from mesh.core.state.partition_state import Partition
from mesh.core.task.agent import Payload, describe
from mesh.core.task.result import arguments
from mesh.core.verification.replay_check import CheckScope
from mesh.core.verification.verifier import Verifier
from tests.builders import topology
from tests.fuzz.material import TASK, bodies, document, fuzz, headers, json_values, records

MESH = topology(check="ask -> checked", ship="checked & other -> shipped", leaves=["ask"])


def some(topic: str) -> st.SearchStrategy[list[StoredRecord]]:
    return st.lists(records(topic=topic), max_size=3)


def is_explained(code: str, message: str) -> None:
    assert code in REASONS
    assert 0 < len(message) < 1_000
    assert message.isprintable()


@fuzz
@given(records())
def test_a_record_is_an_event_or_unreadable_for_a_reason(record: StoredRecord) -> None:
    found = read_event(record)
    if isinstance(found, Unreadable):
        is_explained(found.code, found.message)
        return
    again = read_event(record._replace(headers=tuple(event_headers(found))))
    assert isinstance(again, Event)
    assert (again.id, again.kind, again.run_id, again.type) == (found.id, found.kind, found.run_id, found.type)


@fuzz
@given(records(topic="in.ask"))
def test_what_comes_in_is_a_request_or_rejected_for_a_reason(record: StoredRecord) -> None:
    found = admit(record, MESH)
    if isinstance(found, Rejection):
        is_explained(found.code, found.message)
        letter = dead_letter(dead_record(record, found.code, found.message), MESH)
        assert letter.value == record.value
    else:
        assert isinstance(read_event(record._replace(headers=tuple(event_headers(found)), value=found.data)), Event)


@fuzz
@given(bodies, json_values, st.booleans())
def test_a_structured_event_is_taken_apart_or_flawed_for_a_reason(noise: bytes | None, value: Any, whole: bool) -> None:
    event = {"specversion": "1.0", "id": "x", "source": "/s", "type": "ask", "data": value}
    body = document({**event, **(value if isinstance(value, dict) else {})}) if whole else noise or b""
    for content_type in (STRUCTURED, f"{STRUCTURED}; charset=utf-8", "application/cloudevents-batch+json", "", "\x00"):
        found = unwrap(body, content_type)
        if isinstance(found, Flaw):
            is_explained(found.code, found.message)


@fuzz
@given(bodies)
def test_a_body_is_a_document_or_flawed_for_a_reason(body: bytes | None) -> None:
    found = parse_strict(body or b"")
    if isinstance(found, Flaw):
        is_explained(found.code, found.message)


@fuzz
@given(st.lists(records(), max_size=6))
def test_a_partition_answers_every_record_and_goes_on(inbox: list[StoredRecord]) -> None:
    state = Partition(MESH, number=0, partitions=1)
    for offset, record in enumerate(inbox):
        for effect in state.step(record._replace(offset=offset)):
            if isinstance(effect, DeadLetter | Note):
                assert effect.code
            if isinstance(effect, DeadLetter | Finish | PublishEvent | PublishTask):
                new = record_of(effect, MESH)
                assert replacement_of(new, "too_large", "at most 5 bytes", MESH).topic in (
                    MESH.inbox,
                    MESH.dead,
                    MESH.outcomes,
                )
        assert state.offset == offset + 1


@fuzz
@given(
    headers,
    st.none() | st.binary(max_size=8),
    bodies,
    st.sampled_from(["mesh.inbox", "mesh.dead", "out", "mesh.tasks.check"]),
)
def test_what_stands_for_a_refused_record_can_be_made_of_any(
    given_headers: list[tuple[str, bytes]], key: bytes | None, value: bytes | None, topic: str
) -> None:
    instead = replacement_of(NewRecord(topic, key, value, tuple(given_headers)), "too_large", "at most 5 bytes", MESH)
    assert dict(instead.headers)


class Ask(Payload, type="ask"):
    id: str
    n: float = 0.0


def take(ask: Ask) -> None: ...


@fuzz
@given(bodies)
def test_a_payload_fits_or_fails_for_a_reason(body: bytes | None) -> None:
    try:
        arguments(describe(take), replace(TASK, data=body or b""))
    except InvalidInput as error:
        is_explained(error.code, str(error))


@fuzz
@given(some("mesh.tasks.check"), some("mesh.dead"), some("mesh.inbox"))
def test_a_check_of_the_log_says_what_is_wrong_with_it(
    tasks: list[StoredRecord], dead: list[StoredRecord], inbox: list[StoredRecord]
) -> None:
    verifier = Verifier(CheckScope(MESH, states=lambda number: Partition(MESH, number=number, partitions=1)))
    for offset, record in enumerate([*tasks, *dead]):
        verifier.take_published(record._replace(offset=offset))
    for offset, record in enumerate(inbox):
        verifier.take_inbox(record._replace(offset=offset))
    for violation in verifier.report().violations:
        assert violation.what
        assert violation.where
