"""A topology for tests, built from the signatures of functions instead of topics.yaml."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import orjson

from mesh.core.task.agent import Agent, Parameter, agent_of
from mesh.core.topology.loader import load
from mesh.core.topology.model import Topology

Options = Mapping[str, Mapping[str, Any]]


def topology_of(
    functions: Sequence[Callable[..., Any]], *, options: Options | None = None, mesh: Mapping[str, Any] | None = None
) -> Topology:
    """Build a topology in which each function is an agent of its own name, and its annotations are its routes.

    A function with several parameters joins their types. Types that no function emits enter by an ingress topic
    `in.TYPE`, types that no function takes leave by an egress topic `out.TYPE`. `options`: by agent, what topics.yaml
    would say besides (`{"ship": {"when": "fraud.scored.score < 0.7", "timeout": "2s"}}`). `mesh`: the same for the part
    `mesh` (`{"limits": {"depth_max": 3}}`). Raises TopologyInvalid, and ValueError for a signature that names no types.
    """
    options = options or {}
    agents = {function.__name__: _declaration(agent_of(function), options) for function in functions}
    if len(agents) < len(functions) or (unknown := set(options) - set(agents)):
        problem = "two functions have one name" if len(agents) < len(functions) else f"no function {unknown}"
        raise ValueError(f"{problem}; the functions are {', '.join(f.__name__ for f in functions)}")
    taken = dict.fromkeys(type for agent in agents.values() for type in _types(agent.get("on")))
    emitted = dict.fromkeys(type for agent in agents.values() for type in _types(agent.get("emits")))
    topics = {f"in.{type}": {"ingress": type, "partitions": 1} for type in taken if type not in emitted}
    topics |= {f"out.{type}": {"egress": type, "partitions": 1} for type in emitted if type not in taken}
    head = {"name": "test", "inbox": {"partitions": 1}, **(mesh or {})}
    document = {"mesh": head, "topics": topics, "agents": agents}
    return load(orjson.dumps(document, option=orjson.OPT_INDENT_2).decode(), path="topology_of(…)")


def _declaration(agent: Agent, options: Options) -> dict[str, Any]:
    """Return what topics.yaml would say of one agent."""
    name = agent.function.__name__
    given = options.get(name, {})
    declared: dict[str, Any] = {"run": f"functions:{name}"}
    if "on" not in given:
        declared["on"] = _inputs(name, agent)
    if "emits" not in given:
        if agent.emits is None:
            raise ValueError(f"the results of {name!r} name no types; give options={{{name!r}: {{'emits': …}}}}")
        declared["emits"] = list(agent.emits)
    return declared | dict(given)


def _inputs(name: str, agent: Agent) -> Any:
    needed: Sequence[Parameter] = [p for p in agent.parameters if p.required] or agent.parameters
    types = [type for parameter in needed for type in parameter.types]
    if not types or (len(needed) > 1 and len(types) > len(needed)):
        raise ValueError(f"the parameters of {name!r} do not say its inputs; give options={{{name!r}: {{'on': …}}}}")
    return {"all": types} if len(needed) > 1 else types


def _types(routes: Any) -> Sequence[str]:
    """Return the event types in a value of `on` or `emits`."""
    if isinstance(routes, Mapping):
        routes = routes.get("all", ())
    return [routes] if isinstance(routes, str) else routes or ()
