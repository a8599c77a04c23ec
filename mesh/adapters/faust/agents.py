"""A user's Faust agent as an agent of the mesh: what it takes, what it gives, how many calls it allows at once."""

import sys
from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar
from pathlib import Path
from typing import Annotated, Any

from faust.models.base import Model
from pydantic import PlainValidator, TypeAdapter

from mesh.adapters.faust.calls import Calls
from mesh.core.errors import ConfigInvalid
from mesh.core.task.agent import Agent, Emit, Parameter
from mesh.core.topology.model import AgentSpec

Message = ContextVar[Any]
"""Where the message of the task in work is found."""


def joining(app: Any, specs: Mapping[str, AgentSpec], where: str) -> dict[str, Any]:
    """Return the app's agents by their names in topics.yaml. Raises ConfigInvalid."""
    found = {}
    for name, spec in specs.items():
        agents = [agent for agent in app.agents.values() if _run_of(agent.fun) == spec.run]
        if not agents:
            known = ", ".join(sorted(_run_of(agent.fun) for agent in app.agents.values())) or "no agent"
            raise ConfigInvalid(
                f"agent {name!r} is not in the Faust app",
                where=f"{where}:{spec.line}",
                expected=known,
                got=spec.run,
                remedy="Call join after the agents are declared; `run` is module:function of one of them",
            )
        if spec.join:
            raise ConfigInvalid(
                f"agent {name!r} needs several events for one task, and a Faust agent takes one",
                where=f"{where}:{spec.line}",
                remedy="Let an agent of the mesh join the events, and consume what it emits",
            )
        found[name] = agents[0]
    return found


def described(agent: Any, calls: Calls, message: Message) -> Agent:
    """Return a Faust agent as the mesh calls it."""

    async def call(payload: Any, context: Any) -> Any:
        values = [_plain(value) for value in await calls.call(payload, message.get(), context)]
        return values[0] if len(values) == 1 else values

    takes = Parameter("payload", (), {"": _validator(agent.channel.value_type)})
    run = _run_of(agent.fun)
    return Agent(call, (takes,), "context", None, True, run, calls_max=agent.concurrency)


def _run_of(function: Callable[..., Awaitable[Any]]) -> str:
    """Return `module:function`. The module of a program that is run is named by its file."""
    module = function.__module__
    if module == "__main__":
        module = Path(getattr(sys.modules[module], "__file__", None) or module).stem
    return f"{module}:{function.__qualname__}"


def _validator(value_type: Any) -> TypeAdapter[Any]:
    """Return what reads a payload as the value type of an agent's topic. A codec's name or None: as decoded JSON."""
    if isinstance(value_type, type) and issubclass(value_type, Model):

        def read(value: Any) -> Any:
            try:
                found = value_type.from_data(value)
            except (TypeError, KeyError, AttributeError) as error:  # a field is missing, or it is no JSON object
                raise ValueError(f"no {value_type.__name__}: {error}") from error
            if found.validation_errors:
                raise ValueError(f"no {value_type.__name__}: {found.validation_errors[0]}")
            return found

        return TypeAdapter(Annotated[Any, PlainValidator(read)])
    return TypeAdapter(value_type if isinstance(value_type, type) and value_type is not bytes else Any)


def _plain(value: Any) -> Any:
    """Return a value that an agent yielded, with a Faust record as a mapping."""
    if isinstance(value, Emit):
        return value._replace(payload=_plain(value.payload))
    if isinstance(value, Model):
        return _without_class(value.to_representation())
    return value


def _without_class(value: Any) -> Any:
    """Return a record's data without the names of its classes, which Faust adds for itself."""
    if isinstance(value, Model):
        value = value.to_representation()
    if isinstance(value, dict):
        return {key: _without_class(each) for key, each in value.items() if key != "__faust"}
    if isinstance(value, list | tuple):
        return [_without_class(each) for each in value]
    return value
