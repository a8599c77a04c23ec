"""Annotations are applied whole: unions by the event's type, discriminators and validators around them."""

from typing import Annotated, Any, Literal, NewType

import pytest
from pydantic import AfterValidator, BaseModel, Discriminator, Field, Tag, ValidationError

from mesh.core.errors import InvalidInput
from mesh.core.payload.annotation import Payload, adapters, has_metadata, union_members


class Placed(Payload, type="order.placed"):
    order_id: str


class Changed(Payload, type="order.changed"):
    order_id: str


class Card(Payload, type="paid"):
    by: Literal["card"]
    digits: str


class Cash(Payload, type="paid"):
    by: Literal["cash"]


class Refund(Payload, type="refunded"):
    by: Literal["refund"]


class Cat(BaseModel):
    kind: str


class Dog(BaseModel):
    kind: str


def kind_of(value: Any) -> str:
    return str(value.get("kind") if isinstance(value, dict) else value.kind)


Pet = Annotated[Annotated[Cat, Tag("cat")] | Annotated[Dog, Tag("dog")], Discriminator(kind_of)]
Order = NewType("Order", Placed)


def refuse(what: str, expected: str, remedy: str) -> InvalidInput:
    return InvalidInput(what, code="bad_agent", where="here", expected=expected, remedy=remedy)


def read(hint: Any, event_type: str, data: bytes) -> Any:
    return adapters(hint, "it", refuse)[event_type].validate_json(data)


def upper(value: Any) -> Any:
    return type(value)(order_id=value.order_id.upper())


def test_a_callable_discriminator_chooses_the_class_and_refuses_the_rest() -> None:
    assert read(Pet, "", b'{"kind":"dog"}') == Dog(kind="dog")
    with pytest.raises(ValidationError, match="union_tag_invalid"):
        read(Pet, "", b'{"kind":"fish"}')


def test_a_discriminator_wants_its_field() -> None:
    hint = Annotated[Card | Cash, Field(discriminator="by")]
    assert read(hint, "paid", b'{"by":"cash"}') == Cash(by="cash")
    with pytest.raises(ValidationError, match="union_tag_not_found"):
        read(hint, "paid", b'{"digits":"1"}')


def test_a_discriminated_union_of_several_event_types_refuses_the_wrong_one() -> None:
    hint = Annotated[Card | Cash | Refund, Field(discriminator="by")]
    assert list(adapters(hint, "it", refuse)) == ["paid", "refunded"]
    assert read(hint, "refunded", b'{"by":"refund"}') == Refund(by="refund")
    with pytest.raises(ValidationError, match="the payload is a 'refunded', the event is a 'paid'"):
        read(hint, "paid", b'{"by":"refund"}')


@pytest.mark.parametrize(("event_type", "expected"), [("order.placed", Placed), ("order.changed", Changed)])
def test_the_event_type_selects_the_member_and_a_validator_around_the_union_is_called(
    event_type: str, expected: type[Any]
) -> None:
    hint = Annotated[Placed | Changed | None, AfterValidator(upper)]
    assert read(hint, event_type, b'{"order_id":"o"}') == expected(order_id="O")


def test_a_validator_around_an_untyped_union_is_called() -> None:
    def never(value: Any) -> Any:
        raise ValueError("never")

    with pytest.raises(ValidationError, match="never"):
        read(Annotated[str | int, Field(description="x"), AfterValidator(never)], "", b'"text"')


def test_none_is_taken_where_it_is_declared() -> None:
    assert read(Placed | None, "order.placed", b"null") is None
    with pytest.raises(ValidationError):
        read(Placed, "order.placed", b"null")


def test_new_types_and_nested_annotations_are_seen_through() -> None:
    assert list(union_members(Annotated[Annotated[Order | int, "a"] | None, "b"])) == [Placed, int, type(None)]
    assert read(Order, "order.placed", b'{"order_id":"o"}') == Placed(order_id="o")
    inner = Annotated[Placed | Changed, AfterValidator(upper)]
    assert read(inner | Refund, "order.changed", b'{"order_id":"o"}') == Changed(order_id="O")
    assert read(inner | Refund, "refunded", b'{"by":"refund"}') == Refund(by="refund")


def test_two_classes_of_one_type_need_a_discriminator() -> None:
    with pytest.raises(InvalidInput, match="it takes 'paid' as two classes: Card and Cash") as caught:
        adapters(Card | Cash, "it", refuse)
    assert caught.value.remedy == 'Write `Annotated[Card | Cash, Field(discriminator="…")]`'


def test_words_for_readers_declare_nothing() -> None:
    assert not has_metadata(Annotated[Placed, "a note"])
    assert not has_metadata(Placed)
    assert has_metadata(Annotated[Annotated[Placed, AfterValidator(upper)], "a note"])
