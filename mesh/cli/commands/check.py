"""`mesh check`: does topics.yaml hold together, do its agents import, do both say the same?"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mesh.cli.framework.options import command, verb
from mesh.cli.framework.session import Session, embedded_path
from mesh.cli.framework.text import counted
from mesh.core.errors import LogUnavailable, Problem, TopologyInvalid
from mesh.core.redaction import mask

if TYPE_CHECKING:
    from mesh.operations.rollout import TopologyChange

app = verb()


@command(app, "check", example="mesh check --topology topics.yaml")
async def check(session: Session) -> int:
    """Prove topics.yaml, and that the code agrees with it; tell what a change does to open runs.

    The functions that it names are imported. All problems are told at once, each with its line and a remedy. Where the
    log can be reached, topics with another number of partitions are problems, and the log is read for runs that were
    opened under another topics.yaml.
    """
    from mesh.app.wiring import validate_agents

    output = session.output
    try:
        topology = session.topology
    except TopologyInvalid as error:
        return _told(session, error.path, error.problems)
    _, problems, unchecked = validate_agents(topology)
    if problems:
        return _told(session, topology.path, problems)
    ins, outs = len(topology.ingress), len(topology.egress)
    problems, topology_changes = await _on_the_log(session)
    if problems:
        return _told(session, topology.path, problems)
    output.emit(
        {
            "ok": True,
            "mesh": topology.name,
            "digest": topology.digest,
            "agents": len(topology.agents),
            "problems": [],
            "changes": [change._asdict() for change in topology_changes],
            "unchecked": [{"line": path.line, "what": str(path)} for path in unchecked],
        }
    )
    output.print(
        ("✓ ", "green"),
        f"{topology.path}: {counted(len(topology.agents), 'agent')}, {ins} types in, {outs} out",
        (f"  digest {topology.digest}", "dim"),
    )
    for path in unchecked:
        output.note(("note ", "dim"), f"{topology.path}:{path.line}: {path}")
    for change in topology_changes:
        output.print(("change ", "yellow"), change.text)
    return 0


async def _on_the_log(session: Session) -> "tuple[list[Problem], list[TopologyChange]]":
    """What keeps topics.yaml from being used on the log, and what it changes there. Nothing if the log cannot be
    read."""
    from mesh.adapters.clock import SystemClock
    from mesh.core.topology.partition_counts import find_mismatches, problems_of
    from mesh.operations.rollout import topology_changes

    path = embedded_path(session.settings.log)
    if path is not None and not path.is_file():
        return [], []
    try:
        async with session.log() as log:
            problems = problems_of(find_mismatches(session.topology, await log.topics()))
            return problems, [] if problems else await topology_changes(log, session.topology, SystemClock())
    except LogUnavailable as error:
        session.output.note(("note ", "yellow"), f"what it changes for open runs was not looked at: {error}")
        return [], []


def _told(session: Session, path: str, problems: Sequence[Problem]) -> int:
    output = session.output
    problems = [problem._replace(what=mask(problem.what)) for problem in problems]  # it may quote an exception
    output.emit({"ok": False, "problems": [{"file": path, **problem._asdict()} for problem in problems]})
    for problem in problems:
        output.print((f"{path}:{problem.line}", "bold"), f": {problem.what}. ", (problem.remedy, "dim"))
    output.note(("✗ ", "red"), counted(len(problems), "problem"))
    return 1
