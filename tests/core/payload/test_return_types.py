"""Return annotations: the types they name, and every form that is refused."""

import dataclasses
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Iterable, Iterator, Sequence
from typing import Annotated, Any, Never, TypeVar

import orjson
import pytest
from pydantic import AfterValidator, BaseModel, Field, PlainSerializer, RootModel, computed_field
from typing_extensions import TypedDict

from mesh.core.errors import InvalidInput
from mesh.core.payload.return_types import Results, results_of
from mesh.core.task.agent import Emit, Payload, Reject, RetryLater, agent_of, describe
from mesh.core.task.result import parts_of
from mesh.core.topology.model import AgentSpec

SOLE = AgentSpec("pricing", "x:y", ("in",), ("priced",))
T = TypeVar("T", bound=Payload)


class In(Payload, type="in"):
    n: int = 0


class Priced(Payload, type="priced"):
    total: int = Field(default=0, ge=0)


class Rejected(Payload, type="rejected"):
    pass


class Ids(RootModel[list[int]]):
    pass


class Row(TypedDict):
    total: int


@dataclasses.dataclass
class Record:
    total: int


class Plain(BaseModel):
    total: int = 0


class Spoken(Payload, type="priced"):
    total: int = Field(default=0, ge=0, serialization_alias="sum")

    @computed_field  # type: ignore[prop-decorator]
    @property
    def double(self) -> int:
        return self.total * 2


class Louder(Spoken):
    volume: int = 11


def large(priced: Priced) -> Priced:
    if priced.total < 10:
        raise ValueError("too small")
    return priced


def read(hint: Any) -> Results:
    def refuse(what: str, expected: str, remedy: str) -> InvalidInput:
        return InvalidInput(what, code="bad_agent", where="here", expected=expected, remedy=remedy)

    return results_of(hint, refuse, silent=(RetryLater, Reject), unnamed=(Emit,))


@pytest.mark.parametrize(
    ("hint", "emits"),
    [
        (Priced, ("priced",)),
        (Priced | Rejected | None, ("priced", "rejected")),
        (Priced | RetryLater | Reject | None, ("priced",)),
        (list[Priced | Rejected], ("priced", "rejected")),
        (tuple[Priced, Rejected], ("priced", "rejected")),
        (tuple[Priced, ...] | Rejected, ("rejected", "priced")),
        (Sequence[Priced], ("priced",)),
        (Annotated[Priced | None, "a note"], ("priced",)),
        (type(None), ()),
        (Never, ()),
        (Emit, None),
        (Priced | Emit, None),
        (Any, None),
        (dict[str, Any], None),
        (list, None),
        (Plain, None),
        (list[Priced | Plain], None),
    ],
)
def test_what_is_named_is_emitted(hint: Any, emits: tuple[str, ...] | None) -> None:
    assert read(hint).emits == emits


@pytest.mark.parametrize(
    "hint",
    [
        set[Priced],
        frozenset[Priced],
        deque[Priced],
        Iterator[Priced],
        Iterable[Priced],
        AsyncIterator[Priced],
        Awaitable[Priced],
        list[list[Priced]],
        Annotated[list[Priced], Field(max_length=3)],
    ],
)
def test_a_form_that_cannot_be_kept_is_refused(hint: Any) -> None:
    with pytest.raises(InvalidInput, match="the result is"):
        read(hint)


@pytest.mark.parametrize(
    ("hint", "value", "data"),
    [
        (Ids, Ids([1, 2]), b"[1,2]"),
        (Row, {"total": 5}, b'{"total":5}'),
        (Record, Record(5), b'{"total":5}'),
        (int, 5, b"5"),
        (Annotated[Priced, PlainSerializer(lambda p: {"t": p.total})], Priced(total=5), b'{"t":5}'),
        (Priced, {"total": 5}, b'{"total":5}'),
        (dict[str, Any], {"total": 5}, b'{"total":5}'),
    ],
)
def test_a_value_is_written_as_its_annotation_declares(hint: Any, value: Any, data: bytes) -> None:
    def function(event: In) -> None: ...

    function.__annotations__["return"] = hint
    assert parts_of(agent_of(function), SOLE, value) == (("priced", data),)


@pytest.mark.parametrize(
    ("hint", "value", "path"),
    [
        (Priced, Priced.model_construct(total="x"), "total"),  # type: ignore[arg-type]
        (Priced, Priced.model_construct(total=-1), "total"),
        (Priced, Emit("priced", {"total": "x"}), "total"),
        (Priced, Emit("priced", Plain.model_construct(total=-1)), "total"),
        (Priced, {"total": -1}, "total"),
        (Row, {"total": "x"}, "total"),
        (Record, Record("x"), "total"),  # type: ignore[arg-type]
        (Priced, Emit("priced", None), "(document)"),
        (dict[str, int], {"a": "x"}, "a"),
        (dict[str, int] | None, {"a": "x"}, "a"),
        (list[dict[str, int]], [{"a": 1}, {"a": "x"}], "a"),
        (Annotated[Priced, AfterValidator(lambda priced: priced)], Priced.model_construct(total=-1), "total"),
        (Annotated[Priced, AfterValidator(large)] | Rejected, Priced(total=1), "(document)"),
        (Spoken, Spoken.model_construct(total=-1), "total"),
        (Spoken, Louder(total=1).model_copy(update={"total": -1}), "total"),
    ],
)
def test_a_value_that_contradicts_its_declared_type_is_a_bad_result(hint: Any, value: Any, path: str) -> None:
    def function(event: In) -> None: ...

    function.__annotations__["return"] = hint
    with pytest.raises(InvalidInput, match="not of its declared type") as caught:
        parts_of(agent_of(function), SOLE, value)
    assert caught.value.code == "bad_result"
    assert path in caught.value.what


def test_what_reads_something_else_than_it_writes_may_be_emitted() -> None:
    for value in (Spoken(total=2), Louder(total=2)):
        (part,) = parts_of(agent_of(returning(Spoken)), SOLE, value)
        assert orjson.loads(part.data) == {**value.model_dump(by_alias=True)}
    assert parts_of(agent_of(returning(dict[str, int])), SOLE, {"a": 1}) == (("priced", b'{"a":1}'),)
    assert parts_of(agent_of(returning(dict[str, Any])), SOLE, {"a": "x"}) == (("priced", b'{"a":"x"}'),)


def returning(hint: Any) -> Any:
    def function(event: In) -> None: ...

    function.__annotations__["return"] = hint
    return function


def test_a_subclass_is_written_as_itself() -> None:
    class More(Priced):
        note: str = "kept"

    def function(event: In) -> Priced:
        return More()

    (part,) = parts_of(describe(function), SOLE, More())
    assert orjson.loads(part.data) == {"total": 0, "note": "kept"}


def test_a_type_variable_is_refused_by_name_and_place() -> None:
    def argument(event: T) -> None: ...

    def result(event: In) -> list[T]:
        raise NotImplementedError

    for function in (argument, result):
        with pytest.raises(InvalidInput, match="annotated with the type variable T") as caught:
            describe(function)
        assert f"test_return_types.py:{function.__code__.co_firstlineno}" in caught.value.where


def test_a_model_that_names_what_is_not_defined_is_refused_when_it_is_loaded() -> None:
    class Slip(Payload, type="in"):
        child: "Chlid | None" = None  # type: ignore[name-defined]  # noqa: F821

    def argument(event: Slip) -> None: ...

    def result(event: In) -> Slip:
        raise NotImplementedError

    for function in (argument, result):
        described = describe(function)  # the name may be defined further down
        assert described.consumes == ("in",)
        with pytest.raises(InvalidInput, match="'Chlid' is not defined") as caught:
            agent_of(function)
        assert "test_return_types.py:" in caught.value.where


def test_a_validator_of_a_result_is_called_once_more_before_it_is_emitted() -> None:
    calls: list[int] = []

    def note(value: int) -> int:
        calls.append(value)
        return value

    class Noted(Payload, type="priced"):
        total: Annotated[int, AfterValidator(note)]

    def function(event: In) -> Noted:
        raise NotImplementedError

    assert parts_of(describe(function), SOLE, Noted(total=1)) == (("priced", b'{"total":1}'),)
    assert calls == [1, 1]
