"""Compare a function with the declaration of its agent in topics.yaml, for `mesh check` and `mesh up`. Pure."""

from collections.abc import Iterator, Sequence

from mesh.core.errors import Problem
from mesh.core.suggest import did_you_mean, nearest
from mesh.core.task.agent import Agent, location
from mesh.core.topology.model import AgentSpec


def signature_problems(spec: AgentSpec, given: Sequence[str], agent: Agent) -> Iterator[Problem]:
    """Yield contradictions between a declaration and its function. `given`: the event types that reach the agent."""
    yield from _inputs(spec, given, agent)
    yield from _results(spec, agent)


def _inputs(spec: AgentSpec, given: Sequence[str], agent: Agent) -> Iterator[Problem]:
    untyped = any("" in parameter.adapters for parameter in agent.parameters)
    missing = [type for type in given if type not in agent.consumes]
    if missing and not untyped:
        what = f"{spec.name}: its function takes no {', '.join(map(repr, missing))}; {location(agent.function)} takes "
        what += ", ".join(map(repr, agent.consumes)) or "nothing"
        remedy = f"Add a parameter for {missing[0]!r} to {spec.run}"
        yield Problem(spec.line, what, did_you_mean(missing[0], agent.consumes, remedy))
    unrouted = [type for p in agent.parameters if p.required for type in p.types if not set(p.types) & set(given)]
    if unrouted:
        what = f"{spec.name}: its function takes {', '.join(map(repr, unrouted))}, to which it does not subscribe; "
        what += f"see {location(agent.function)}"
        yield Problem(spec.line, what, f"Add it to `on`, or remove the parameter from {spec.run}")


def _results(spec: AgentSpec, agent: Agent) -> Iterator[Problem]:
    undeclared = [type for type in agent.results.types if type and type not in spec.emits]
    if undeclared:
        what = f"{spec.name}: its function emits {', '.join(map(repr, undeclared))}, which is not declared; "
        what += f"`emits` allows {allowed(spec)}, {location(agent.function)} returns it"
        yield Problem(spec.line, what, emits_remedy(spec, undeclared[0]))
    if agent.emits is not None:
        silent = [type for type in spec.emits if type not in agent.emits]
        if silent:
            what = f"{spec.name}: declares {', '.join(map(repr, silent))}, which its function never emits; "
            what += f"see {location(agent.function)}"
            yield Problem(spec.line, what, f"Remove it from `emits`, or add it to what {spec.run} returns")
    if "" in agent.results.types and len(spec.emits) != 1:
        what = f"{spec.name}: its function returns a payload whose class names no event type, and `emits` lists "
        what += f"{len(spec.emits)} types, so its type is not known; see {location(agent.function)}"
        yield Problem(spec.line, what, f'Give the class that {spec.run} returns its type: `class X(Payload, type="x")`')


def allowed(spec: AgentSpec) -> str:
    """Return the types that an agent may emit, as text."""
    return ", ".join(map(repr, spec.emits)) or "nothing"


def emits_remedy(spec: AgentSpec, type: str) -> str:
    """Return the fix for an event type that is missing in `emits`."""
    suggestion = nearest(type, spec.emits)
    hint = f"Did you mean {suggestion!r}? Otherwise add" if suggestion else "Add"
    return f"{hint} {type!r} to `emits` of {spec.name}, or change what {spec.run} returns"
