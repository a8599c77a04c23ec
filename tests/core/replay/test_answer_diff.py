"""Two answers or outcomes are compared: what a repetition has again must be equal, and only that."""

from typing import Any

import orjson
import pytest

from mesh.core.errors import InvalidInput
from mesh.core.protocol.event import BATCH, FAILED, SUCCEEDED, Event, Fault, Part, Usage, encode_batch
from mesh.core.replay.answer_diff import (
    Ignored,
    answer_differences,
    answer_text,
    outcome_differences,
    same_input,
    verdict_of,
)


def priced(payload: Any, **fields: Any) -> Event:
    return Event("t:1:succeeded", "/agents/a", "order.priced", SUCCEEDED, "r", orjson.dumps(payload), **fields)


def several(*parts: tuple[str, Any]) -> Event:
    data = encode_batch([Part(type, orjson.dumps(value)) for type, value in parts], source="/a", event_id="t")
    return Event("t", "/a", "mesh.batch", SUCCEEDED, "r", data, content_type=BATCH)


def failure(code: str, message: str = "no", cls: str = "") -> Event:
    return Event("t", "/a", "ask", FAILED, "r", b"{}", fault=Fault(code, message, cls, True, "a stack"))


def places(recorded: Event, new: Event, *ignored: str) -> list[str]:
    return [found.place for found in answer_differences(recorded, new, Ignored(ignored))]


def test_the_first_differing_field_is_named_with_both_values() -> None:
    recorded = priced({"total": 100, "lines": [{"id": 1, "cents": 5}], "at": "x"})
    new = priced({"at": "x", "lines": [{"id": 1, "cents": 6}], "total": 100})
    (found,) = answer_differences(recorded, new)
    assert (found.place, found.expected, found.got) == ("order.priced.lines[0].cents", "5", "6")
    assert answer_differences(recorded, priced(orjson.loads(recorded.data))) == []


def test_ids_times_and_spending_may_differ() -> None:
    assert (
        answer_differences(priced({"n": 1}, at_ms=1), priced({"n": 1}, at_ms=9, usage=Usage(5, 6), origin="t:0:2"))
        == []
    )


@pytest.mark.parametrize(
    ("ignored", "left"),
    [
        ((), ["order.priced.at", "order.priced.lines[0].id", "order.priced.lines[1].id"]),
        (("at",), ["order.priced.lines[0].id", "order.priced.lines[1].id"]),
        (("lines.id", "at"), []),
        (("lines[1].id",), ["order.priced.at", "order.priced.lines[0].id"]),
        (("order.priced.at", "lines"), []),
        (("order.priced",), []),
        (("stock.checked.at", "lines"), ["order.priced.at"]),
    ],
)
def test_what_is_ignored_may_differ_alone_or_after_its_type(ignored: tuple[str, ...], left: list[str]) -> None:
    recorded = priced({"at": 1, "lines": [{"id": 1}, {"id": 2}]})
    assert places(recorded, priced({"at": 2, "lines": [{"id": 3}, {"id": 4}]}), *ignored) == left


def test_what_is_no_path_cannot_be_ignored() -> None:
    with pytest.raises(InvalidInput, match="path of a field"):
        Ignored(["a..b"])


def test_a_missing_a_further_and_another_event_are_differences() -> None:
    recorded = several(("a", 1), ("b", 2))
    assert places(recorded, several(("a", 1))) == ["event"]
    assert places(recorded, several(("a", 1), ("c", 2))) == ["event"]
    assert places(several(("a", 1), ("a", 2)), several(("a", 1), ("a", 3))) == ["a #2"]
    assert places(several(("a", 1)), priced(1)) == ["event"]


def test_a_success_that_became_a_failure_is_reported_with_its_reason() -> None:
    (found,) = answer_differences(priced({}), failure("exception", "KeyError: 'x'"))
    assert (found.place, found.expected, found.got) == ("answer", "order.priced", "failed: exception: KeyError: 'x'")


def test_failures_are_compared_by_code_class_and_message_and_not_by_stack() -> None:
    other_stack = failure("exception")
    other_stack.fault = other_stack.fault and other_stack.fault._replace(stack="another stack")
    assert answer_differences(failure("exception"), other_stack) == []
    assert places(failure("exception", "a", "X"), failure("rejected", "b", "Y")) == [
        "error.code",
        "error.class",
        "error.message",
    ]
    assert places(failure("exception", "a"), failure("exception", "b"), "error.message") == []


def test_inputs_are_the_same_where_types_and_payloads_are() -> None:
    assert same_input(priced({"a": 1, "b": 2}), priced({"b": 2, "a": 1}, attempt=2))
    assert not same_input(priced({"a": 1}), priced({"a": 2}))


def test_an_answer_in_a_few_words() -> None:
    assert answer_text(several(("a", 1), ("a", 2), ("b", 1))) == "2 x a, b"
    assert answer_text(several()) == "nothing"
    assert answer_text(failure("rejected")) == "failed: rejected"


def outcome(**fields: Any) -> dict[str, Any]:
    results = [{"type": "x", "id": "1", "agent": "a", "data": {"n": 1}}, {"type": "y", "id": "2", "agent": "b"}]
    return {"ending": "completed", "results": results, "tasks": 2, "took_ms": 5, "opened": "then", **fields}


def test_an_outcome_in_another_order_at_another_time_is_the_same() -> None:
    again = outcome(took_ms=9, opened="now", results=outcome()["results"][::-1])
    assert outcome_differences(outcome(), again) == []


def test_differences_of_outcomes_are_reported_by_their_place() -> None:
    refusal = {"code": "depth", "agent": "a", "path": ["a"], "limit": 3, "actual": 4, "message": "m"}
    other = outcome(
        ending="partial", refusals=[refusal], results=[{"type": "x", "id": "9", "agent": "a", "data": {"n": 2}}]
    )
    found = {each.place: (each.expected, each.got) for each in outcome_differences(outcome(), other)}
    assert found["outcome.ending"] == ('"completed"', '"partial"')
    assert found["outcome.refusals[0]"][0] == "(nothing)"
    assert found["x.n"] == ("1", "2")
    assert found["result"] == ("y of b", "(nothing)")
    assert len(found) == 4
    left = outcome_differences(outcome(), other, Ignored(["outcome.ending", "outcome.refusals", "n"]))
    assert [each.place for each in left] == ["result"]


@pytest.mark.parametrize(
    ("new", "recorded_ms", "new_ms", "verdict"),
    [
        (priced(1), 10, 109, "same"),
        (priced(1), 10, 111, "slower"),
        (priced(1), 200, 500, "same"),
        (priced(2), 10, 10, "different"),
        (failure("exception"), 10, 10, "failed"),
    ],
)
def test_a_verdict_is_about_the_answer_and_then_about_its_time(
    new: Event, recorded_ms: float, new_ms: float, verdict: str
) -> None:
    differences = answer_differences(priced(1), new)
    assert verdict_of(priced(1), new, differences, recorded_ms, new_ms) == verdict


def test_another_failure_is_a_difference_and_measured_messages_do_not_count() -> None:
    differences = answer_differences(failure("exception"), failure("rejected"))
    assert verdict_of(failure("exception"), failure("rejected"), differences, 0, 0) == "different"
    assert answer_differences(failure("timed_out", "5 ms"), failure("timed_out", "6 ms")) == []


def test_a_value_that_is_masked_in_the_recording_is_not_compared() -> None:
    recorded, new = priced({"api_key": "***", "n": 1}), priced({"api_key": "sk-aaa", "n": 2})
    masked: set[str] = set()
    assert [found.place for found in answer_differences(recorded, new, masked=masked)] == ["order.priced.n"]
    assert masked == {"order.priced.api_key"}
    assert places(recorded, priced({"n": 1})) == ["order.priced.api_key"], "a field that is gone is a difference"
    results = [{"results": [{"type": "t", "agent": "a", "data": {"api_key": key}}]} for key in ("***", "sk-aaa")]
    assert outcome_differences(results[0], results[1]) == []
