"""An agent: a named function from payloads to payloads.

    class OrderPlaced(Payload, type="order.placed"): ...

    @agent
    async def check(order: OrderPlaced, ctx: Context) -> StockReserved | OrderRejected: ...

Parameters annotated with payload types receive events; one annotated `Context` receives the context. The return
annotation lists what may be emitted. A function may return a payload, a list of payloads (fan-out), `Emit` to name the
type explicitly, None (this branch ends), `RetryLater(seconds)` (not now, ask again) or `Reject(reason)` (never).
Topics are not known here: topics.yaml connects agents, `mesh check` compares it with the functions.
"""

import inspect
import typing
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Final, NamedTuple, TypeVar, overload

from pydantic import PydanticUserError, TypeAdapter

from mesh.core.errors import InvalidInput
from mesh.core.payload.annotation import Payload as Payload
from mesh.core.payload.annotation import adapters, union_members
from mesh.core.payload.json_encode import PayloadWriter
from mesh.core.payload.name_clashes import DuplicateJsonName
from mesh.core.payload.return_types import Results, results_of


class Emit(NamedTuple):
    """An event to emit whose type is named here instead of by its class. `payload`: a model or JSON-able value."""

    type: str
    payload: Any


class RetryLater(NamedTuple):
    """Result of an agent that cannot answer now: `return RetryLater(30, "rate limited")`.

    The task is delivered again after `seconds` (at most 366 days), as far as the run's deadline allows. This counts
    neither as a failure nor as an attempt.
    """

    seconds: float
    reason: str = ""


Later = RetryLater
"""Old name of `RetryLater`, kept importable."""


class Reject(NamedTuple):
    """Result of an agent that will never answer this task: `return Reject("the order is empty")`.

    The task fails for good with code `rejected` and this reason, without another attempt.
    """

    reason: str


NO_RESULTS: Final = Results({}, {}, None)
Lifespan = Callable[[], AbstractAsyncContextManager[Any]]
"""Opens the resources of an agent and closes them; what it yields is `ctx.resources`."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter that takes an event: its name, the event types it may hold, and how to validate the JSON."""

    name: str
    types: tuple[str, ...]
    adapters: dict[str, TypeAdapter[Any]]
    """Event type → validator; the key "" serves any type (a plain model or `dict`)."""
    required: bool = True
    """False: it has a default, which is used if no event for it came."""


@dataclass(frozen=True, slots=True)
class Agent:
    """A function prepared for the worker. Call the original through `function`."""

    function: Callable[..., Any]
    parameters: tuple[Parameter, ...]
    context: str | None
    """Name of the parameter that takes the Context; None: there is none."""
    emits: tuple[str, ...] | None
    """Types named by the return annotation; None when it names none (a plain model, `Emit`, or no annotation)."""
    is_async: bool
    where: str
    results: Results = NO_RESULTS
    """Declarations of the return annotation, by event type and by class."""
    declared_at: str = ""
    """File and line of the agent's declaration; empty if unknown."""
    lifespan: Lifespan | None = None
    calls_max: int | None = None
    """Calls at once in one process, if the function allows fewer than `lanes` of topics.yaml."""
    classes: Mapping[type, tuple[str, PayloadWriter]] = field(init=False, repr=False, compare=False)
    """Class of a result → its event type, and its writer."""
    alone: Mapping[str, tuple[str, TypeAdapter[Any]] | None] = field(init=False, repr=False, compare=False)
    """Event type → the parameter that takes a single event of it and its validator; None: the function needs more than
    that. The key "" serves any other type."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "classes", self.results.classes)
        object.__setattr__(self, "alone", _alone(self.parameters))

    @property
    def consumes(self) -> tuple[str, ...]:
        """Event types that the parameters name, in order."""
        return tuple(t for p in self.parameters for t in p.types)


F = TypeVar("F", bound=Callable[..., Any])


@overload
def agent(function: F, /) -> F: ...
@overload
def agent(*, lifespan: Lifespan) -> Callable[[F], F]: ...
def agent(function: F | None = None, /, *, lifespan: Lifespan | None = None) -> F | Callable[[F], F]:
    """Mark a function as an agent: `@agent`, or `@agent(lifespan=clients)`.

    `lifespan` is a function decorated with `contextlib.asynccontextmanager`. Each worker process enters it once before
    the first task and closes it after the last one; the value it yields is `ctx.resources` in every call. Agents that
    name the same lifespan share the value. Raises InvalidInput (`bad_agent`) for a signature that cannot be used.
    """
    if function is None:
        return partial(_mark, lifespan=lifespan)
    return _mark(function, None)


def _mark(function: F, lifespan: Lifespan | None) -> F:
    described = describe(function)
    if lifespan is not None and (not callable(lifespan) or inspect.isasyncgenfunction(lifespan)):
        what, fix = f"its lifespan {lifespan!r:.80} makes no context manager", "Decorate it with asynccontextmanager"
        raise _bad(described.where, what, "a function decorated with contextlib.asynccontextmanager", fix)
    function.__mesh_agent__ = replace(described, lifespan=lifespan)  # type: ignore[attr-defined]
    return function


def agent_of(function: Callable[..., Any]) -> Agent:
    """Return the description of a function, with every annotation resolved. Raises InvalidInput (`bad_agent`).

    The description made by `@agent` is used only if it is of this very function: functools.wraps copies it to wrappers.
    """
    found = getattr(function, "__mesh_agent__", None)
    if not isinstance(found, Agent):
        return _complete(describe(function))
    return _complete(found if found.function is function else replace(describe(function), lifespan=found.lifespan))


def describe(function: Callable[..., Any]) -> Agent:
    """Read a function's signature. Raises InvalidInput (`bad_agent`) if it is invalid."""
    where = location(function)
    if not inspect.isfunction(function):
        fix = "Write a function that calls it, with annotations of its own"
        raise _bad(where, f"{type(function).__name__} is not a function", "`def` or `async def` at module level", fix)
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
    consumed = [t for p in parameters for t in p.types]
    repeated = next((t for t in consumed if consumed.count(t) > 1), None)
    if repeated is not None:
        names = " and ".join(p.name for p in parameters if repeated in p.types)
        raise _bad(where, f"{names} both take {repeated!r}", "one parameter a type", "Give each its own payload type")
    declared_results = NO_RESULTS
    if returns is not None:
        declared_results = results_of(returns, partial(_bad, where), silent=(RetryLater, Reject), unnamed=(Emit,))
    named = _where(function)
    is_async = inspect.iscoroutinefunction(function)
    return Agent(function, tuple(parameters), context, declared_results.emits, is_async, named, declared_results)


def _complete(agent: Agent) -> Agent:
    """Resolve names in payload types that their modules had not defined yet when the function was described."""
    try:
        for parameter in agent.parameters:
            for adapter in parameter.adapters.values():
                if not adapter.pydantic_complete:
                    adapter.rebuild(raise_errors=True)
        for writer in (*agent.results.types.values(), *(writer for _, writer in agent.results.classes.values())):
            writer.prepare()
    except DuplicateJsonName as error:
        fix = "Give one of them another serialization alias"
        raise _bad(location(agent.function), str(error), "one field for each name", fix) from error
    except (NameError, PydanticUserError) as error:
        text = f"an annotation of a payload type cannot be resolved: {str(error).splitlines()[0]}"
        where = location(agent.function)
        raise _bad(where, text, "a name of the module", "Define or import it, or correct its name") from error
    return agent


def _bad(where: str, what: str, expected: str, remedy: str) -> InvalidInput:
    return InvalidInput(what, code="bad_agent", where=where, expected=expected, remedy=remedy)


def location(function: Any) -> str:
    """Return where a function is defined: `module:name (file:line)`."""
    where, line = _where(function), file_line(function)
    return f"{where} ({line})" if line else where


def file_line(function: Any) -> str:
    """Return `file:line` of a function's definition; empty if unknown."""
    code = getattr(inspect.unwrap(function) if callable(function) else function, "__code__", None)
    return "" if code is None else f"{code.co_filename}:{code.co_firstlineno}"


def _where(function: Any) -> str:
    return f"{getattr(function, '__module__', '?')}:{getattr(function, '__qualname__', repr(function)[:64])}"


def _hints(function: Callable[..., Any], where: str) -> dict[str, Any]:
    try:
        hints = typing.get_type_hints(function, include_extras=True)
    except (NameError, AttributeError, TypeError, SyntaxError) as error:
        raise _bad(where, f"an annotation cannot be resolved: {error}", "", "Import the name at run time") from error
    for name, hint in hints.items():
        variable = next(
            (each for each in (hint, *union_members(hint), *typing.get_args(hint)) if isinstance(each, TypeVar)), None
        )
        if variable is not None:
            what = f"{_checked_name(name)} is annotated with the type variable {variable.__name__}"
            raise _bad(where, what, "a type", f"Write the type that stands for {variable.__name__}")
    return hints


def _checked_name(name: str) -> str:
    return "the result" if name == "return" else f"parameter {name!r}"


def _check_kind(where: str, declared: inspect.Parameter) -> None:
    if declared.kind in (declared.VAR_POSITIONAL, declared.VAR_KEYWORD, declared.POSITIONAL_ONLY):
        raise _bad(
            where,
            f"parameter {str(declared).partition(':')[0]!r} is {declared.kind.description}",
            "parameters that can be given by name",
            "Name each event it takes",
        )


def _parameter(where: str, declared: inspect.Parameter, hint: Any) -> Parameter:
    if any(getattr(leaf, "__mesh_context__", False) for leaf in union_members(hint)):
        what = f"parameter {declared.name!r} is a Context or something else"
        raise _bad(where, what, "Context alone", f"Annotate it: `{declared.name}: Context`")
    found = adapters(hint, f"parameter {declared.name!r}", partial(_bad, where))
    return Parameter(declared.name, tuple(t for t in found if t), found, required=declared.default is declared.empty)


def _alone(parameters: Sequence[Parameter]) -> dict[str, tuple[str, TypeAdapter[Any]] | None]:
    found: dict[str, tuple[str, TypeAdapter[Any]] | None] = {}
    for taker in parameters:
        enough = not any(other.required for other in parameters if other is not taker)
        for type, adapter in taker.adapters.items():
            found.setdefault(type, (taker.name, adapter) if enough else None)
    return found
