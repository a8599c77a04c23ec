"""An agent: a named function from payloads to payloads.

    class OrderPlaced(Payload, type="order.placed"): ...

    @agent
    async def check(order: OrderPlaced, ctx: Context) -> StockReserved | OrderRejected: ...

Parameters annotated with payload types receive events; one annotated `Context` receives the context. The return
annotation says what may be emitted. Returned values: a payload, a list of payloads (fan-out), `Emit` to name the
type explicitly, or None (this branch ends). Nothing here knows topics: topics.yaml wires, `mesh check` compares.
"""

import inspect
import types
import typing
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, TypeVar

from pydantic import BaseModel, ConfigDict, TypeAdapter

from mesh.core.errors import InvalidInput


class Payload(BaseModel):
    """A pydantic model that knows its type of event: `class OrderPlaced(Payload, type="order.placed")`.

    Frozen. Fields that are not declared are ignored, so that upstream may add some.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")
    event_type: ClassVar[str] = ""

    def __init_subclass__(cls, type: str = "", **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if type:
            cls.event_type = type

    @classmethod
    def __pydantic_init_subclass__(cls, type: str = "", **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)


class Emit(NamedTuple):
    """An event to emit whose type is named here instead of by its class. `payload`: a model or JSON-able value."""

    type: str
    payload: Any


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter that takes an event: its name, the event types it may hold, and how to validate the JSON."""

    name: str
    types: tuple[str, ...]
    adapters: dict[str, TypeAdapter[Any]]
    """Event type → validator; the key "" serves any type (a plain model or `dict`)."""


@dataclass(frozen=True, slots=True)
class Agent:
    """A function prepared for the worker. Call the original through `function`."""

    function: Callable[..., Any]
    parameters: tuple[Parameter, ...]
    context: str | None
    """Name of the parameter that takes the Context."""
    emits: tuple[str, ...] | None
    """Types named by the return annotation; None when it names none (a plain model, `Emit`, or no annotation)."""
    is_async: bool
    where: str

    @property
    def hears(self) -> tuple[str, ...]:
        """Types of events the parameters name, in order."""
        return tuple(t for p in self.parameters for t in p.types)


F = TypeVar("F", bound=Callable[..., Any])


def agent(function: F) -> F:
    """Mark a function as an agent; problems with its signature are raised here, at import, as InvalidInput."""
    function.__mesh_agent__ = describe(function)  # type: ignore[attr-defined]
    return function


def describe(function: Callable[..., Any]) -> Agent:
    """Read a function's signature. Raises InvalidInput when a parameter cannot be understood."""
    where = f"{function.__module__}:{function.__qualname__}"
    try:
        hints = typing.get_type_hints(function, include_extras=True)
    except NameError as error:
        raise InvalidInput(
            f"annotation cannot be resolved: {error}", code="bad_agent", where=where, remedy="Import the name"
        ) from error
    returns = hints.pop("return", None)
    parameters: list[Parameter] = []
    context: str | None = None
    for name in inspect.signature(function).parameters:
        hint = hints.get(name)
        if hint is None:
            raise InvalidInput(
                f"parameter {name!r} has no annotation",
                code="bad_agent",
                where=where,
                expected="a payload type or Context",
                remedy=f"Annotate it: `{name}: SomePayload`",
            )
        if getattr(hint, "__mesh_context__", False):
            context = name
        else:
            parameters.append(_parameter(name, hint))
    if not parameters:
        raise InvalidInput(
            "an agent takes at least one event",
            code="bad_agent",
            where=where,
            expected="a parameter annotated with a payload type",
            remedy="Add one: `event: SomePayload`",
        )
    emits = None if returns is None else _emitted(returns)
    return Agent(function, tuple(parameters), context, emits, inspect.iscoroutinefunction(function), where)


def members(hint: Any) -> Sequence[Any]:
    """The members of a union, or the hint itself."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return typing.get_args(hint)
    return (hint,)


def _parameter(name: str, hint: Any) -> Parameter:
    adapters: dict[str, TypeAdapter[Any]] = {}
    for member in members(hint):
        key = member.event_type if isinstance(member, type) and issubclass(member, Payload) else ""
        adapters[key] = TypeAdapter(member)
    return Parameter(name, tuple(t for t in adapters if t), adapters)


def _emitted(hint: Any) -> tuple[str, ...] | None:
    """Types named by a return annotation; None when it does not name them all."""
    found: list[str] = []
    for member in members(hint):
        if member is type(None):
            continue
        origin = typing.get_origin(member)
        if origin is not None and isinstance(origin, type) and issubclass(origin, Sequence):
            inner = _emitted(typing.get_args(member)[0])
            if inner is None:
                return None
            found.extend(inner)
        elif isinstance(member, type) and issubclass(member, Payload) and member.event_type:
            found.append(member.event_type)
        else:
            return None
    return tuple(dict.fromkeys(found))
