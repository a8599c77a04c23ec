"""Read payload annotations: the event types that one accepts, and a pydantic TypeAdapter for each of them.

No part of an annotation is dropped. The event's type selects among the members of a union; validators, discriminators
and serializers around the union apply to the selected members. A discriminated union stays whole: pydantic selects, and
a value of another event type is refused.
"""

import typing
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from types import NoneType, UnionType
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Discriminator, PydanticUserError, TypeAdapter
from pydantic.fields import FieldInfo

from mesh.core.errors import InvalidInput

MakeError = Callable[[str, str, str], InvalidInput]
"""Makes the error from what is wrong, what is expected, and the fix; it adds the location."""


class Payload(BaseModel):
    """A pydantic model with an event type: `class OrderPlaced(Payload, type="order.placed")`.

    Instances are frozen. Undeclared fields are ignored, so that senders may add fields.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")
    event_type: typing.ClassVar[str] = ""

    def __init_subclass__(cls, type: str = "", **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if type:
            cls.event_type = type

    @classmethod
    def __pydantic_init_subclass__(cls, type: str = "", **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)


def unwrap_alias(hint: Any) -> Any:
    """Return the class behind a NewType or a type alias; any other hint unchanged."""
    while True:
        if isinstance(hint, typing.NewType):
            hint = hint.__supertype__
        elif type(hint).__name__ == "TypeAliasType":
            hint = hint.__value__
        else:
            return hint


def union_members(hint: Any) -> Sequence[Any]:
    """Return the members of a union, through annotations and aliases; for any other hint, the hint itself."""
    hint = unwrap_alias(hint)
    origin = typing.get_origin(hint)
    if origin is Annotated:
        return union_members(typing.get_args(hint)[0])
    if origin in (typing.Union, UnionType):
        return [leaf for member in typing.get_args(hint) for leaf in union_members(member)]
    return (hint,)


def event_type_of(leaf: Any) -> str:
    """Return the event type of a class; "" when it has none."""
    return leaf.event_type if isinstance(leaf, type) and issubclass(leaf, Payload) else ""


def adapters(
    hint: Any, name: str, refuse: MakeError, *, only: Sequence[Any] | None = None
) -> dict[str, TypeAdapter[Any]]:
    """Return event type → adapter, in the order of the annotation. The key "" accepts any type.

    `name` is for errors. `only`: the members of the union to consider.
    """
    found = [leaf for leaf in union_members(hint) if leaf is not NoneType] if only is None else only
    classes: dict[str, list[Any]] = {}
    for leaf in found:
        classes.setdefault(event_type_of(leaf), []).append(leaf)
    for event_type, several in classes.items():
        if event_type and len(several) > 1 and not any(_discriminators(hint)):
            names = " and ".join(each.__name__ for each in several)
            raise refuse(
                f"{name} takes {event_type!r} as two classes: {names}",
                "one class for an event type, or a union with a discriminator",
                f'Write `Annotated[{" | ".join(each.__name__ for each in several)}, Field(discriminator="…")]`',
            )
    if not found:
        return {"": _adapter(hint, name, refuse)}
    in_order = sorted(classes, key=lambda event_type: not event_type)
    return {each: _adapter(_narrow(hint, each, classes[each]), name, refuse) for each in in_order}


def has_metadata(annotation: Any) -> bool:
    """Whether an annotation has metadata other than text: a validator, a serializer, a constraint."""
    if typing.get_origin(annotation) is not Annotated:
        return False
    return any(not isinstance(each, str) for each in annotation.__metadata__) or has_metadata(annotation.__origin__)


def _narrow(hint: Any, event_type: str, members: Sequence[Any]) -> Any:
    """Return the hint without the other members of its union."""
    kept = _keep_members(hint, members)
    if all(leaf is NoneType or leaf in members for leaf in union_members(kept)):
        return kept
    return Annotated[kept, AfterValidator(partial(_agreeing, event_type))]


def _keep_members(hint: Any, members: Sequence[Any]) -> Any:
    """Return the hint with these members only, None if none remains. A hint with a discriminator is unchanged."""
    if all(leaf is NoneType or leaf in members for leaf in union_members(hint)):
        return hint
    hint = unwrap_alias(hint)
    if typing.get_origin(hint) is Annotated:
        if any(_is_discriminator(each) for each in hint.__metadata__):
            return hint if any(leaf in members for leaf in union_members(hint)) else None
        kept = _keep_members(hint.__origin__, members)
        return None if kept is None else Annotated[kept, *hint.__metadata__]
    if typing.get_origin(hint) not in (typing.Union, UnionType):
        return None
    inner = tuple(kept for member in typing.get_args(hint) if (kept := _keep_members(member, members)) is not None)
    return typing.Union[inner] if inner else None  # noqa: UP007  # made from a tuple


def _agreeing(event_type: str, value: Any) -> Any:
    if isinstance(value, Payload) and value.event_type != event_type:
        raise ValueError(f"the payload is a {value.event_type!r}, the event is a {event_type!r}")
    return value


def _discriminators(hint: Any) -> Iterator[Any]:
    hint = unwrap_alias(hint)
    if typing.get_origin(hint) is Annotated:
        yield from (each for each in hint.__metadata__ if _is_discriminator(each))
        yield from _discriminators(hint.__origin__)
    elif typing.get_origin(hint) in (typing.Union, UnionType):
        for member in typing.get_args(hint):
            yield from _discriminators(member)


def _is_discriminator(metadata: Any) -> bool:
    return isinstance(metadata, Discriminator) or (
        isinstance(metadata, FieldInfo) and metadata.discriminator is not None
    )


def _adapter(hint: Any, name: str, refuse: MakeError) -> TypeAdapter[Any]:
    try:
        return TypeAdapter(hint)
    except (PydanticUserError, TypeError) as error:
        raise refuse(
            f"{name} cannot be read from JSON: {str(error).splitlines()[0]}",
            "a type that pydantic knows",
            "Annotate it with a Payload class",
        ) from error
