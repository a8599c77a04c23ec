"""`mesh check`: validate topics.yaml, import its agents, compare both, and report what changes for open runs."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mesh.cli.framework.options import command, verb
from mesh.cli.framework.session import Session, embedded_path
from mesh.cli.framework.text import counted
from mesh.core.errors import LogUnavailable, Problem, TopologyInvalid
from mesh.core.redaction import mask

if TYPE_CHECKING:
    from mesh.operations.rollout import TopologyChange
    from mesh.operations.signature_fill import Filled

app = verb()


@command(app, "check", example="mesh check --topology topics.yaml")
async def check(
    session: Session,
    *,
    fix: Annotated[
        bool, typer.Option("--fix", help="first add to `on` and `emits` what the signatures of the functions say")
    ] = False,
) -> int:
    """Validate topics.yaml, and compare it with the code.

    The command also reports the effect of a change on open runs. The functions that topics.yaml names are imported. All
    problems are reported at once, each with its line and a remedy. If the log can be reached, topics with another
    number of partitions are problems, and the log is searched for runs that were opened under another topics.yaml.

    --fix adds types to `on` and `emits`, removes nothing, and keeps comments and layout of the file.
    """
    from mesh.app.wiring import validate_agents

    output = session.output
    filled = _fix(session) if fix else None
    extra: dict[str, Any] = {}
    if filled is not None:
        extra = {"fixed": [each._asdict() for each in filled.changes], "left": [each._asdict() for each in filled.left]}
    try:
        topology = session.topology
    except TopologyInvalid as error:
        return _report_problems(session, error.path, error.problems, extra)
    _, problems, unchecked = validate_agents(topology)
    found: list[TopologyChange] = []
    if not problems:
        problems, found = await _compare_with_log(session)
    if problems:
        return _report_problems(session, topology.path, problems, extra)
    agents, ins, outs = counted(len(topology.agents), "agent"), len(topology.ingress), len(topology.egress)
    output.emit(
        {
            "ok": True,
            "mesh": topology.name,
            "digest": topology.digest,
            "agents": len(topology.agents),
            "problems": [],
            "changes": [change._asdict() for change in found],
            "unchecked": [{"line": path.line, "what": str(path)} for path in unchecked],
            **extra,
        }
    )
    digest = f"  digest {topology.digest}"
    output.print(("✓ ", "green"), f"{topology.path}: {agents}, {counted(ins, 'type')} in, {outs} out", (digest, "dim"))
    for path in unchecked:
        output.note(("note ", "dim"), f"{topology.path}:{path.line}: {path}")
    for change in found:
        output.print(("change ", "yellow"), change.text)
    return 0


def _fix(session: Session) -> "Filled | None":
    """Write into topics.yaml what the signatures say, and print it. None if the file cannot be read as YAML."""
    from mesh.app.wiring import import_agents
    from mesh.core.text_encoding import codec_for
    from mesh.core.topology.model import AgentSpec, Limits, Topology
    from mesh.operations.signature_fill import fill, runs_of

    path = Path(session.settings.topology)
    try:
        data = path.read_bytes()
        codec = codec_for(data) or "utf-8"
        written = data.decode(codec)
    except (OSError, ValueError):
        return None  # reading it as a topology says why
    windows = written.count("\r\n") == written.count("\n") > 0
    text = written.replace("\r\n", "\n") if windows else written
    runs = runs_of(text)
    specs = {name: AgentSpec(name, run, (), (), line=line) for name, (run, line) in runs.items()}
    agents, _ = import_agents(Topology("", "", Limits(), agents=specs, topics={}, path=str(path)))
    filled, output = fill(text, agents), session.output
    shown = path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
    if filled.changes:
        path.write_bytes((filled.text.replace("\n", "\r\n") if windows else filled.text).encode(codec))
    for change in filled.changes:
        before = f"{change.before} → " if change.before else ""
        place = f"{shown}:{change.line}"
        output.print(("fixed ", "green"), (place, "bold"), f": {change.agent}: {change.key}: {before}{change.after}")
    for left in filled.left:
        output.print(("left ", "yellow"), (f"{shown}:{left.line}", "bold"), f": {left.agent}: {left.key}: {left.why}")
    if not filled.changes:
        output.note("Nothing to fix.")
    return filled


async def _compare_with_log(session: Session) -> "tuple[list[Problem], list[TopologyChange]]":
    """Return the problems of topics.yaml with the log, and its changes to the topology there. Both are empty if the
    log cannot be read."""
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
        session.output.note(("note ", "yellow"), f"the log was not searched for open runs: {error}")
        return [], []


def _report_problems(session: Session, path: str, problems: Sequence[Problem], extra: dict[str, Any]) -> int:
    output = session.output
    problems = [problem._replace(what=mask(problem.what)) for problem in problems]  # it may quote an exception
    output.emit({"ok": False, "problems": [{"file": path, **problem._asdict()} for problem in problems], **extra})
    for problem in problems:
        output.print((f"{path}:{problem.line}", "bold"), f": {problem.what}. ", (problem.remedy, "dim"))
    output.note(("✗ ", "red"), counted(len(problems), "problem"))
    return 1
