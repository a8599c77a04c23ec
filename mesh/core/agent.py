"""An agent: a named function from payloads to payloads.

    class OrderPlaced(Payload, type="order.placed"): ...

    @agent
    async def check(order: OrderPlaced, ctx: Context) -> StockReserved | OrderRejected: ...

Parameters annotated with payload types receive events; one annotated `Context` receives the context. The return
annotation says what may be emitted. Returned values: a payload, a list of payloads (fan-out), `Emit` to name the
type explicitly, None (this branch ends), `Later(seconds)` (not now, ask again), or `Reject(reason)` (never, and here is
why). Nothing here knows topics: topics.yaml wires, `mesh check` compares.
"""

import inspect
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple, TypeVar

from pydantic import BaseModel, ConfigDict, PydanticUserError, TypeAdapter

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


class Later(NamedTuple):
    """Returned by an agent that cannot answer now: `return Later(30, "rate limited")`.

    The task comes again after so many `seconds` (up to 366 days), as long as the run's deadline allows it. This is no
    failure and uses up no attempt.
    """

    seconds: float
    reason: str = ""


class Reject(NamedTuple):
    """Returned by an agent that will never answer this: `return Reject("the order is empty")`.

    The task fails for good with code `rejected` and this reason, without another attempt.
    """

    reason: str


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter that takes an event: its name, the event types it may hold, and how to validate the JSON."""

    name: str
    types: tuple[str, ...]
    adapters: dict[str, TypeAdapter[Any]]
    """Event type → validator; the key "" serves any type (a plain model or `dict`)."""
    required: bool = True
    """False: it has a default, which stands when no event for it came."""


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
    alone: Mapping[str, tuple[str, TypeAdapter[Any]] | None] = field(init=False, repr=False, compare=False)
    """Event type → the parameter that takes a single event of it and its validator; None: the function needs more than
    that. The key "" serves any other type."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "alone", _alone(self.parameters))

    @property
    def hears(self) -> tuple[str, ...]:
        """Types of events the parameters name, in order."""
        return tuple(t for p in self.parameters for t in p.types)


F = TypeVar("F", bound=Callable[..., Any])


def agent(function: F) -> F:
    """Mark a function as an agent; problems with its signature are raised here, at import, as InvalidInput."""
    function.__mesh_agent__ = describe(function)  # type: ignore[attr-defined]
    return function


def agent_of(function: Callable[..., Any]) -> Agent:
    """As it was marked, or described now, with every annotation resolved. Raises InvalidInput (`bad_agent`).

    What wraps a marked function looks marked (functools.wraps copies that), and is another function.
    """
    found = getattr(function, "__mesh_agent__", None)
    return _complete(found if isinstance(found, Agent) and found.function is function else describe(function))


def describe(function: Callable[..., Any]) -> Agent:
    """Read a function's signature. Raises InvalidInput (`bad_agent`) when it cannot be understood."""
    where = f"{getattr(function, '__module__', '?')}:{getattr(function, '__qualname__', repr(function)[:64])}"
    if not inspect.isfunction(function):
        raise _bad(where, f"{type(function).__name__} is not a function", "`def` or `async def` at module level", "")
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise _bad(where, "an agent answers once", "a function without `yield`", "Return a list of payloads")
    hints = _hints(function, where)
    returns = hints.pop("return", None)
    parameters: list[Parameter] = []
    context: str | None = None
    for name, declared in inspect.signature(function).parameters.items():
        _check_kind(where, declared)
        hint = hints.get(name)
        if hint is None:
            raise _bad(
                where,
                f"parameter {name!r} has no annotation",
                "a payload type or Context",
                f"Annotate it: `{name}: SomePayload`",
            )
        if not getattr(hint, "__mesh_context__", False):
            parameters.append(_parameter(where, declared, hint))
        elif context is None:
            context = name
        else:
            raise _bad(where, f"{context!r} and {name!r} both take the context", "one Context", "Remove one")
    if not parameters:
        raise _bad(
            where,
            "an agent takes at least one event",
            "a parameter annotated with a payload type",
            "Add one: `event: SomePayload`",
        )
    heard = [t for p in parameters for t in p.types]
    twice = next((t for t in heard if heard.count(t) > 1), None)
    if twice is not None:
        names = " and ".join(p.name for p in parameters if twice in p.types)
        raise _bad(where, f"{names} both take {twice!r}", "one parameter a type", "Give each its own payload type")
    emits = None if returns is None else _emitted(returns)
    return Agent(function, tuple(parameters), context, emits, inspect.iscoroutinefunction(function), where)


def _complete(agent: Agent) -> Agent:
    """Resolve names in payload types that their modules had not defined yet when the function was described."""
    try:
        for adapter in (adapter for parameter in agent.parameters for adapter in parameter.adapters.values()):
            if not adapter.pydantic_complete:
                adapter.rebuild(raise_errors=True)
        for model in _models(typing.get_type_hints(agent.function).get("return")):
            if not model.__pydantic_complete__:
                model.model_rebuild()
    except (NameError, PydanticUserError) as error:
        text = f"an annotation of a payload type cannot be resolved: {str(error).splitlines()[0]}"
        raise _bad(agent.where, text, "a name of the module", "Define or import it, or correct its name") from error
    return agent


def _models(hint: Any) -> Iterator[type[BaseModel]]:
    """The models that an annotation names."""
    if isinstance(hint, type) and issubclass(hint, BaseModel):
        yield hint
    for inner in typing.get_args(hint):
        yield from _models(inner)


def members(hint: Any) -> Sequence[Any]:
    """The members of a union, or the hint itself."""
    if typing.get_origin(hint) is typing.Annotated:
        return members(typing.get_args(hint)[0])
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return [inner for member in typing.get_args(hint) for inner in members(member)]
    return (hint,)


def _bad(where: str, what: str, expected: str, remedy: str) -> InvalidInput:
    return InvalidInput(what, code="bad_agent", where=where, expected=expected, remedy=remedy)


def _hints(function: Callable[..., Any], where: str) -> dict[str, Any]:
    try:
        return typing.get_type_hints(function, include_extras=True)
    except (NameError, AttributeError, TypeError, SyntaxError) as error:
        raise _bad(where, f"an annotation cannot be resolved: {error}", "", "Import the name at run time") from error


def _check_kind(where: str, declared: inspect.Parameter) -> None:
    if declared.kind in (declared.VAR_POSITIONAL, declared.VAR_KEYWORD, declared.POSITIONAL_ONLY):
        raise _bad(
            where,
            f"parameter {str(declared).partition(':')[0]!r} is {declared.kind.description}",
            "parameters that can be given by name",
            "Name each event it takes",
        )


def _parameter(where: str, declared: inspect.Parameter, hint: Any) -> Parameter:
    adapters: dict[str, TypeAdapter[Any]] = {}
    untyped: list[Any] = []
    found = [member for member in members(hint) if member is not type(None)]
    whole = typing.get_origin(hint) is typing.Annotated and len(found) == 1
    for member in found:
        if getattr(member, "__mesh_context__", False):
            raise _bad(where, f"parameter {declared.name!r} is a Context or something else", "Context alone", "")
        type_of_event = member.event_type if isinstance(member, type) and issubclass(member, Payload) else ""
        if not type_of_event:
            untyped.append(hint if whole else member)
        elif type_of_event in adapters:
            raise _bad(where, f"parameter {declared.name!r} takes {type_of_event!r} as two classes", "one of them", "")
        else:
            adapters[type_of_event] = _adapter(where, declared.name, hint if whole else member)
    if untyped or not found:
        adapters[""] = _adapter(where, declared.name, typing.Union[tuple(untyped)] if found else hint)  # noqa: UP007
    return Parameter(
        declared.name, tuple(t for t in adapters if t), adapters, required=declared.default is declared.empty
    )


def _adapter(where: str, name: str, hint: Any) -> TypeAdapter[Any]:
    try:
        return TypeAdapter(hint)
    except PydanticUserError as error:
        text = f"parameter {name!r} cannot be read from JSON: {str(error).splitlines()[0]}"
        raise _bad(where, text, "a payload type", "Annotate it with a Payload class") from error


def _alone(parameters: Sequence[Parameter]) -> dict[str, tuple[str, TypeAdapter[Any]] | None]:
    found: dict[str, tuple[str, TypeAdapter[Any]] | None] = {}
    for taker in parameters:
        enough = not any(other.required for other in parameters if other is not taker)
        for type, adapter in taker.adapters.items():
            found.setdefault(type, (taker.name, adapter) if enough else None)
    return found


def _emitted(hint: Any) -> tuple[str, ...] | None:
    """Types named by a return annotation; None when it does not name them all."""
    found: list[str] = []
    for member in members(hint):
        if member in (type(None), Later, Reject):
            continue
        origin = typing.get_origin(member)
        if isinstance(origin, type) and issubclass(origin, Sequence):
            for inner in typing.get_args(member):
                emitted = () if inner is Ellipsis else _emitted(inner)
                if emitted is None:
                    return None
                found.extend(emitted)
        elif isinstance(member, type) and issubclass(member, Payload) and member.event_type:
            found.append(member.event_type)
        else:
            return None
    return tuple(dict.fromkeys(found))
