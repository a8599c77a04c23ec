"""From a task to arguments, and from what a function returned or raised to one answer."""

from dataclasses import replace
from decimal import Decimal
from typing import Any, NamedTuple

import orjson
import pytest
from pydantic import BaseModel, Field

from mesh.context import Context
from mesh.core.errors import InvalidInput
from mesh.core.protocol.event import BATCH, FAILED, NO_USAGE, SUCCEEDED, Event, Fault, Part, Usage, encode_batch
from mesh.core.task.agent import Emit, Payload, describe
from mesh.core.task.result import arguments, failure_event, fault_of, parts_of, success_event
from mesh.core.topology.model import AgentSpec
from tests.core.samples import AT_MS, again, task


class Line(BaseModel):
    sku: str
    qty: int = Field(gt=0)


class Placed(Payload, type="order.placed"):
    order_id: str
    lines: tuple[Line, ...] = ()


class Priced(Payload, type="order.priced"):
    total: float = 0


class Note(Payload):
    text: str = ""


def single(order: Placed) -> None: ...


def either(event: Placed | Priced) -> None: ...


def join(order: Placed, price: Priced, ctx: Context) -> None: ...


def loose(rest: dict[str, Any], order: Placed) -> None: ...


def patient(order: Placed | None = None, price: Priced | None = None) -> None: ...


def choosy(rest: dict[str, Any], order: Placed | None = None) -> None: ...


def anything(first: dict[str, Any], second: dict[str, Any]) -> None: ...


def holding(*parts: tuple[str, bytes]) -> Event:
    """A task with these events: one as it is, several as a batch."""
    given_task = task()
    if len(parts) == 1:
        given_task.type, given_task.data = parts[0]
    else:
        given_task.content_type = BATCH
        given_task.data = encode_batch([Part(*p) for p in parts], source="/runs/r1", event_id="join")
    return given_task


PLACED = ("order.placed", b'{"order_id":"o-1"}')
PRICED = ("order.priced", b'{"total":5}')


# --------------------------------------------------------------------------------------------------------- arguments


@pytest.mark.parametrize(
    ("function", "parts", "expected"),
    [
        (single, [PLACED], {"order": Placed(order_id="o-1")}),
        (either, [PLACED], {"event": Placed(order_id="o-1")}),
        (either, [PRICED], {"event": Priced(total=5)}),
        (join, [PRICED, PLACED], {"order": Placed(order_id="o-1"), "price": Priced(total=5)}),
        (loose, [PLACED, PRICED], {"order": Placed(order_id="o-1"), "rest": {"total": 5}}),
        (loose, [PRICED, PLACED], {"order": Placed(order_id="o-1"), "rest": {"total": 5}}),
        (patient, [PRICED], {"price": Priced(total=5)}),
        (choosy, [PRICED], {"rest": {"total": 5}}),
        (choosy, [PLACED, PRICED], {"order": Placed(order_id="o-1"), "rest": {"total": 5}}),
        (anything, [PLACED, PRICED], {"first": {"order_id": "o-1"}, "second": {"total": 5}}),
        (single, [PLACED, ("order.other", b"{}")], {"order": Placed(order_id="o-1")}),
    ],
)
def test_each_event_goes_to_the_parameter_that_takes_it(
    function: Any, parts: list[tuple[str, bytes]], expected: dict[str, Any]
) -> None:
    assert arguments(describe(function), holding(*parts)) == expected


@pytest.mark.parametrize(
    ("data", "path", "count"),
    [
        (b"{}", "order_id", "1 mismatch"),
        (b'{"order_id":5,"lines":[{"sku":"a","qty":0}]}', "order_id", "2 mismatches"),
        (b'{"order_id":"o","lines":[{"sku":"a","qty":1},{"qty":1}]}', "lines.1.sku", "1 mismatch"),
        (b"[]", "(document)", "1 mismatch"),
        (b"not json", "(document)", "1 mismatch"),
        (b"\xff", "(document)", "1 mismatch"),
    ],
)
def test_a_payload_that_does_not_fit_is_refused_by_the_path_of_its_field(data: bytes, path: str, count: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        arguments(describe(single), holding(("order.placed", data)))
    error = caught.value
    assert error.code == "schema"
    assert not error.retriable
    assert error.what.startswith(f"order.placed does not fit: {path}: ")
    assert error.got == count
    assert error.where.endswith("test_result:single")


def test_a_mismatch_does_not_quote_the_payload() -> None:
    broken = holding(("order.placed", b'{"order_id":{"card":"4111-1111"}}'))
    with pytest.raises(InvalidInput) as caught:
        arguments(describe(single), broken)
    fault = fault_of(caught.value)
    assert "4111" not in fault.message
    assert "4111" not in fault.stack


@pytest.mark.parametrize(
    ("function", "parts", "name", "expected"),
    [
        (single, [PRICED], "order", "order.placed"),
        (join, [PLACED], "price", "order.priced"),
        (either, [("x", b"{}")], "event", "order.placed or order.priced"),
        (patient, [("x", b"{}")], "order", "order.placed"),
        (anything, [PLACED], "second", "an event"),
        (choosy, [PLACED], "rest", "an event"),
        (loose, [PRICED], "order", "order.placed"),
    ],
)
def test_a_parameter_that_gets_no_event_is_named(
    function: Any, parts: list[tuple[str, bytes]], name: str, expected: str
) -> None:
    with pytest.raises(InvalidInput) as caught:
        arguments(describe(function), holding(*parts))
    assert caught.value.code == "schema"
    assert caught.value.what == f"no event for parameter {name!r}"
    assert caught.value.expected == expected


def test_an_empty_batch_fits_nothing() -> None:
    with pytest.raises(InvalidInput) as caught:
        arguments(describe(single), holding())
    assert caught.value.got == "nothing"


def test_an_invalid_batch_is_refused_for_good() -> None:
    broken = holding(PLACED, PRICED)
    broken.data = b'[{"type":'
    with pytest.raises(InvalidInput) as caught:
        arguments(describe(join), broken)
    assert caught.value.code == "bad_batch"
    assert not fault_of(caught.value).retryable


# ------------------------------------------------------------------------------------------------- returned values

SPEC = AgentSpec("pricing", "agents.x:f", ("order.placed",), ("order.priced", "order.rejected"))
SOLE = AgentSpec("pricing", "agents.x:f", ("order.placed",), ("order.priced",))
AGENT = describe(single)


@pytest.mark.parametrize(
    ("value", "parts"),
    [
        (None, []),
        ([], []),
        ((), []),
        (Priced(total=5), [("order.priced", b'{"total":5.0}')]),
        (Emit("order.rejected", {"why": "x"}), [("order.rejected", b'{"why":"x"}')]),
        (Emit("order.rejected", Note(text="x")), [("order.rejected", b'{"text":"x"}')]),
        (Emit("order.rejected", None), [("order.rejected", b"null")]),
    ],
)
def test_what_was_returned_becomes_events(value: Any, parts: list[tuple[str, bytes]]) -> None:
    assert list(parts_of(AGENT, SPEC, value)) == parts


def test_a_list_keeps_its_order_and_drops_none() -> None:
    found = parts_of(AGENT, SPEC, [Priced(total=1), None, Emit("order.rejected", {}), Priced(total=2)])
    assert found == [
        Part("order.priced", b'{"total":1.0}'),
        Part("order.rejected", b"{}"),
        Part("order.priced", b'{"total":2.0}'),
    ]


def test_a_payload_without_a_type_is_of_the_only_type_that_is_declared() -> None:
    assert parts_of(AGENT, SOLE, Note(text="x")) == (Part("order.priced", b'{"text":"x"}'),)
    assert parts_of(AGENT, SOLE, {"total": 5}) == (Part("order.priced", b'{"total":5}'),)
    assert parts_of(AGENT, SOLE, [{"total": 5}]) == [Part("order.priced", b'{"total":5}')]


class Pair(NamedTuple):
    a: int
    b: int


async def never() -> None: ...


LOOP: list[Any] = []
LOOP.append(LOOP)


@pytest.mark.parametrize(
    "value",
    [
        "text",
        b"bytes",
        bytearray(b"x"),
        5,
        True,
        object(),
        Placed,
        {"total": 5},
        Note(),
        Pair(1, 2),
        {Priced()},
        range(3),
        (n for n in "ab"),
        [["nested"]],
        [[Priced()]],
        LOOP,
        [5],
        Emit("", {}),
        Emit("a b", {}),
        Emit("a\n", {}),
        Emit("\ud800", {}),
        Emit("x" * 129, {}),
        Emit(5, {}),  # type: ignore[arg-type]
    ],
)
def test_a_value_whose_type_of_event_is_unknown_is_refused(value: Any) -> None:
    with pytest.raises(InvalidInput) as caught:
        parts_of(AGENT, SPEC, value)
    error = caught.value
    assert error.code == "bad_result"
    assert not error.retriable
    assert error.what.startswith("pricing returned ")
    assert len(error.what) < 200


class Surprise(Payload, type="order.pricet"): ...


def surprised(order: Placed) -> Surprise:
    return Surprise()


@pytest.mark.parametrize(
    ("function", "value"),
    [
        (surprised, Surprise()),
        (single, Surprise()),
        (single, Emit("order.pricet", {})),
        (single, [Priced(total=1), Emit("order.pricet", Note())]),
    ],
)
def test_an_undeclared_type_is_reported_with_both_places_and_what_is_allowed(function: Any, value: Any) -> None:
    agent = replace(describe(function), declared_at="shop/topics.yaml:12")
    with pytest.raises(InvalidInput) as caught:
        parts_of(agent, SPEC, value)
    error, code = caught.value, function.__code__
    assert (error.code, error.retriable) == ("undeclared_type", False)
    assert fault_of(error).code == "undeclared_type"
    assert str(error) == (
        "shop/topics.yaml:12: agent 'pricing' emitted 'order.pricet', which it does not declare; expected "
        "'order.priced', 'order.rejected' (its `emits`), got 'order.pricet' from "
        f"{__name__}:{function.__name__} ({code.co_filename}:{code.co_firstlineno}). Did you mean 'order.priced'? "
        "Otherwise add 'order.pricet' to `emits` of pricing, or change what agents.x:f returns"
    )


@pytest.mark.parametrize("payload", [object(), {1: 2}, {"a": {1}}, "\ud800", Note(text="\ud800"), b"x", Decimal(1)])
def test_a_payload_that_is_not_json_is_refused(payload: Any) -> None:
    with pytest.raises(InvalidInput, match="not JSON-able") as caught:
        parts_of(AGENT, SPEC, Emit("order.rejected", payload))
    assert caught.value.code == "bad_result"


@pytest.mark.parametrize("payload", [float("nan"), {"a": [float("inf")]}, Priced(total=float("-inf"))])
def test_a_number_that_is_invalid_is_refused_instead_of_becoming_null(payload: Any) -> None:
    with pytest.raises(InvalidInput, match="NaN and infinity") as caught:
        parts_of(AGENT, SPEC, Emit("order.priced", payload))
    assert caught.value.code == "bad_result"


# ----------------------------------------------------------------------------------------------------------- answers


def test_one_event_is_the_answer_itself() -> None:
    event = again(success_event(task(), [Part("order.priced", b'{"total": 5}')], Usage(5, 6)))
    assert (event.id, event.kind, event.type) == ("t1:1:succeeded", SUCCEEDED, "order.priced")
    assert (event.data, event.content_type) == (b'{"total": 5}', "application/json")
    assert (event.run_id, event.cause_id, event.source) == ("r1", "t1:1", "/agents/pricing")
    assert (event.agent, event.task_id, event.depth) == ("pricing", "t1", 2)
    assert (event.path, event.attempt) == (("intake", "pricing"), 1)
    assert (event.traceparent, event.tracestate) == (task().traceparent, "a=b")
    assert (event.usage, event.fault, event.at_ms) == (Usage(5, 6), None, AT_MS)


@pytest.mark.parametrize("count", [0, 2, 5])
def test_none_or_several_events_travel_in_one_record(count: int) -> None:
    parts = [Part(f"t{n}", b"%d" % n) for n in range(count)]
    event = again(success_event(task(), parts, NO_USAGE))
    assert (event.type, event.content_type) == ("mesh.batch", BATCH)
    assert list(event.parts()) == parts


def test_the_same_attempt_answers_with_the_same_id_and_the_next_with_another() -> None:
    second = task()
    second.id, second.attempt = "t1:2", 2
    assert success_event(task(), [], None).id == success_event(task(), [], None).id
    assert success_event(task(), [], None).id != success_event(second, [], None).id
    assert success_event(task(), [], None).id != failure_event(task(), Fault("x", "y"), None).id


def test_a_failure_carries_the_input_of_its_task_untouched() -> None:
    given_task = holding(PLACED, PRICED)
    fault = Fault("exception", "no", "builtins.ValueError", True, "stack")
    event = again(failure_event(given_task, fault, None))
    assert (event.id, event.kind, event.fault) == ("t1:1:failed", FAILED, fault)
    assert (event.data, event.content_type, event.type) == (given_task.data, BATCH, given_task.type)
    assert event.usage is None


def test_answers_are_json_when_their_payloads_are() -> None:
    event = success_event(task(), parts_of(AGENT, SPEC, [Priced(total=1), Priced(total=2)]), NO_USAGE)
    assert [item["data"] for item in orjson.loads(event.data)] == [{"total": 1.0}, {"total": 2.0}]
