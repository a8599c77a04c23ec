"""`mesh check`: does topics.yaml hold together, do its agents import, do both say the same?"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from mesh.cli.options import command, verb
from mesh.cli.session import Session, embedded_path
from mesh.cli.text import counted
from mesh.core.errors import InvalidInput, LogUnavailable, Problem, TopologyInvalid
from mesh.core.mask import masked
from mesh.core.suggest import nearest
from mesh.core.topology import AgentSpec, Topology

if TYPE_CHECKING:
    from mesh.core.agent import Agent
    from mesh.core.fields import Open
    from mesh.rollout import Change

app = verb()


@command(app, "check", example="mesh check --topology topics.yaml")
async def check(session: Session) -> int:
    """Prove topics.yaml, and that the code agrees with it; tell what a change does to open runs.

    The functions that it names are imported. All problems are told at once, each with its line and a remedy. Where the
    log can be reached, it is read for runs that were opened under another topics.yaml.
    """
    screen = session.screen
    try:
        topology = session.topology
    except TopologyInvalid as error:
        return _told(session, error.path, error.problems)
    unchecked: list[Open] = []
    problems = tuple(_problems(topology, unchecked))
    if problems:
        return _told(session, topology.path, sorted(problems))
    ins, outs = len(topology.ingress), len(topology.egress)
    changes = await _changes(session)
    screen.emit(
        {
            "ok": True,
            "mesh": topology.name,
            "digest": topology.digest,
            "agents": len(topology.agents),
            "problems": [],
            "changes": [change._asdict() for change in changes],
            "unchecked": [{"line": path.line, "what": str(path)} for path in unchecked],
        }
    )
    screen.say(
        ("✓ ", "green"),
        f"{topology.path}: {counted(len(topology.agents), 'agent')}, {ins} types in, {outs} out",
        (f"  digest {topology.digest}", "dim"),
    )
    for path in unchecked:
        screen.note(("note ", "dim"), f"{topology.path}:{path.line}: {path}")
    for change in changes:
        screen.prose(("change ", "yellow"), change.text)
    return 0


async def _changes(session: Session) -> "list[Change]":
    """What topics.yaml changes for the runs that are open on the log; nothing if the log cannot be read."""
    from mesh.rollout import changes
    from mesh.wire.clock import SystemClock

    path = embedded_path(session.settings.log)
    if path is not None and not path.is_file():
        return []
    try:
        async with session.log() as log:
            return await changes(log, session.topology, SystemClock())
    except LogUnavailable as error:
        session.screen.note(("note ", "yellow"), f"what it changes for open runs was not looked at: {error}")
        return []


def _told(session: Session, path: str, problems: "tuple[Problem, ...] | list[Problem]") -> int:
    screen = session.screen
    problems = [problem._replace(what=masked(problem.what)) for problem in problems]  # it may quote an exception
    screen.emit({"ok": False, "problems": [{"file": path, **problem._asdict()} for problem in problems]})
    for problem in problems:
        screen.prose((f"{path}:{problem.line}", "bold"), f": {problem.what}. ", (problem.remedy, "dim"))
    screen.note(("✗ ", "red"), counted(len(problems), "problem"))
    return 1


def _problems(topology: Topology, unchecked: "list[Open]") -> Iterator[Problem]:
    """What is wrong between topics.yaml and the code. Paths that cannot be checked go to `unchecked`."""
    from mesh.core.fields import paths_of
    from mesh.wiring import agent_loader

    load_one, agents = agent_loader(topology), dict[str, "Agent"]()
    lacking: dict[str, list[tuple[AgentSpec, InvalidInput]]] = {}
    for spec in topology.agents.values():
        try:
            agent = load_one(spec.name)
        except InvalidInput as error:
            if isinstance(error.__cause__, ModuleNotFoundError) and error.__cause__.name:
                lacking.setdefault(error.__cause__.name, []).append((spec, error))
                continue
            yield Problem(
                spec.line,
                error.what if repr(spec.name) in error.what else f"agent {spec.name!r}: {error.where}: {error.what}",
                error.remedy,
            )
        else:
            agents[spec.name] = agent
            yield from _differences(spec, topology.given(spec.name), agent)
    for found in lacking.values():  # one library that is missing is one problem, however many agents want it
        (spec, first), more = found[0], len(found) - 1
        others = f"; {counted(more, 'more agent')} cannot be imported for it, too" if more else ""
        yield Problem(spec.line, f"{first.what}{others}", first.remedy)
    if len(agents) == len(topology.agents):
        wrong, unknown = paths_of(topology, agents)
        yield from wrong
        unchecked.extend(unknown)


def _differences(spec: AgentSpec, given: Sequence[str], agent: "Agent") -> Iterator[Problem]:
    untyped = any("" in parameter.adapters for parameter in agent.parameters)
    deaf = [type for type in given if type not in agent.hears]
    if deaf and not untyped:
        near = nearest(deaf[0], agent.hears)
        remedy = f"Did you mean {near!r}?" if near else f"Add a parameter for {deaf[0]!r} to {spec.run}"
        yield Problem(spec.line, f"{spec.name}: its function takes no {', '.join(map(repr, deaf))}", remedy)
    unheard = [type for p in agent.parameters if p.required for type in p.types if not set(p.types) & set(given)]
    if unheard:
        what = f"{spec.name}: its function takes {', '.join(map(repr, unheard))}, which it does not hear"
        yield Problem(spec.line, what, f"Add it to `on`, or remove the parameter from {spec.run}")
    named = tuple(type for type in agent.results.types if type)
    undeclared = [type for type in named if type not in spec.emits]
    if undeclared:
        what = f"{spec.name}: its function emits {', '.join(map(repr, undeclared))}, which is not declared"
        yield Problem(spec.line, what, f"Add it to `emits`, or change what {spec.run} returns")
    if agent.emits is not None:
        silent = [type for type in spec.emits if type not in agent.emits]
        if silent:
            what = f"{spec.name}: declares {', '.join(map(repr, silent))}, which its function never emits"
            yield Problem(spec.line, what, f"Remove it from `emits`, or add it to what {spec.run} returns")
    if "" in agent.results.types and len(spec.emits) != 1:
        what = f"{spec.name}: its function returns a payload whose class names no event type, and `emits` lists "
        what += f"{len(spec.emits)} types, so its type is not known"
        yield Problem(spec.line, what, f'Give the class that {spec.run} returns its type: `class X(Payload, type="x")`')
