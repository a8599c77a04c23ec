"""`mesh test`: take recordings again by the functions of today."""

from contextlib import aclosing
from pathlib import Path
from typing import Annotated

import typer

from mesh.cli.commands.replay.sandbox_options import TIMEOUT, IgnoreOption, TimeoutOption, ignored_fields
from mesh.cli.framework.logs import hide_sandbox
from mesh.cli.framework.options import command, verb
from mesh.cli.framework.session import Session
from mesh.cli.framework.signals import terminable
from mesh.cli.framework.text import counted, seconds
from mesh.core.errors import NotFound

app = verb()
RECORDINGS = "*.jsonl"


@command(app, "test", example="mesh test recordings/")
async def take_again(
    session: Session,
    paths: Annotated[
        list[str], typer.Argument(metavar="PATH…", help="recordings of `mesh run export`, or folders of them")
    ],
    *,
    ignore: IgnoreOption = None,
    timeout: TimeoutOption = TIMEOUT,
) -> int:
    """Take recorded runs again by the functions of today, and compare outcomes and answers.

    Each run has a private mesh in a temporary folder, as with `mesh replay --run`. Exit code 1 if something differs.
    `mesh.testing.replay` does the same in a test of your own.
    """
    from mesh.app.recording_replay import replay_recording
    from mesh.app.wiring import load_agents
    from mesh.cli.commands.replay.agent_topic import todays_topology
    from mesh.core.replay.masked_values import not_compared
    from mesh.core.replay.run_diff import diff_lines

    hide_sandbox(session.output)
    output, topology, ignored = session.output, todays_topology(session), ignored_fields(ignore or ())
    files = [file for path in paths for file in _recordings(path)]
    agents = load_agents(topology)
    runs = different = 0
    with terminable():
        for file in files:
            repetitions = replay_recording(
                file, topology, agents, ignored=ignored, timeout_s=seconds("--timeout", timeout), isolated=True
            )
            async with aclosing(repetitions) as all_of_them:
                async for each in all_of_them:
                    request, same = each.recorded.requests[0], each.diff.same
                    runs, different = runs + 1, different + (not same)
                    lines = list(diff_lines(each.diff))
                    facts = {"recording": str(file), "run": each.recorded.run_id, "same": same, "differences": lines}
                    facts["masked"] = each.diff.masked
                    output.emit(facts)
                    mark = ("✗ ", "red") if not same else ("… ", "cyan") if each.diff.is_open else ("✓ ", "green")
                    name, about = request.subject or each.recorded.run_id, f"  {request.type}"
                    if each.diff.is_open:
                        about += f"  open in the recording: {counted(len(each.diff.compared), 'task')} compared"
                    output.print(mark, str(file), f"  {name}", (about, "dim"))
                    for line in lines:
                        output.print("    ", line)
                    if each.diff.masked:
                        output.print("    ", (not_compared(each.diff.masked), "yellow"))
    output.note(f"{counted(runs, 'run')}, {different} different")
    return 1 if different else 0


def _recordings(path: str) -> list[Path]:
    """Return a recording, or those of a folder in the order of their names. Raises NotFound if there is none."""
    place = Path(path)
    found = sorted(place.glob(RECORDINGS)) if place.is_dir() else [place]
    if not found:
        raise NotFound(
            "the folder holds no recording", where=path, expected=RECORDINGS, remedy="`mesh run export RUN` writes one"
        )
    return found
