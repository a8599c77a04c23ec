"""`mesh replay`: take a recorded run again, in one of its modes. Reads only."""

from typing import Annotated, Final

import typer

from mesh.cli.commands.replay.sandbox_options import (
    TIMEOUT,
    AgentOption,
    FromTaskOption,
    IgnoreOption,
    JobsOption,
    RepeatOption,
    RunOption,
    Sandboxed,
    SaveOption,
    SetOption,
    TimeoutOption,
    misused,
    sandboxed,
)
from mesh.cli.framework.options import command, verb
from mesh.cli.framework.selectors import SinceOption, UntilOption, time_span
from mesh.cli.framework.session import Session

app = verb()
RECORDING_END: Final = ".jsonl"
"""End of the name of a file that stands in place of a run."""
RunArgument = Annotated[
    str | None,
    typer.Argument(
        metavar="[RUN]", help="a run's id or its beginning, a request's id, a subject, or a recording.jsonl"
    ),
]
BreakOption = Annotated[
    str | None, typer.Option("--break", metavar="EXPRESSION", help="as --step; stop where the condition holds")
]
WithOption = Annotated[
    str | None, typer.Option("--with", metavar="FILE", help="what if: decide under this topics.yaml")
]
LimitOption = Annotated[
    list[str] | None,
    typer.Option("--limit", metavar="WORD=VALUE", help="what if: under this limit; with --agent: N tasks at most"),
]


@command(app, "replay", example="mesh replay 3f2a -v")
async def replay(
    session: Session,
    run: RunArgument = None,
    *,
    step: Annotated[bool, typer.Option("--step", help="one event at a time, forwards and back")] = False,
    break_: BreakOption = None,
    check: Annotated[bool, typer.Option("--check", help="compare what is decided with what was published")] = False,
    with_: WithOption = None,
    limit: LimitOption = None,
    sandbox: RunOption = False,
    set: SetOption = None,
    from_task: FromTaskOption = "",
    agent: AgentOption = None,
    repeat: RepeatOption = 1,
    ignore: IgnoreOption = None,
    timeout: TimeoutOption = TIMEOUT,
    jobs: JobsOption = 0,
    save: SaveOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
) -> int:
    """Decide a recorded run again, and show each of its events.

    The command shows what each event changed, and why each effect followed. The command writes nothing and calls no
    agent. -v shows payloads, too.

    --step shows one event at a time, with the keys on the screen (R, A and B search backwards); in a pipe it prints
    all. --break takes the language of `when:` over agent, asked,
    type, kind, code, depth, attempt, ending and data.

    --with and --limit decide the recorded events under another topology or other limits (`depth_max=3`), with the
    recorded answers. If a run would call an agent that was not called then, its rest is unknown.

    --run calls the functions of today with the recorded request, on a private mesh in a temporary folder, with the
    board as it stood then, and compares outcome and answers. --agent without RUN gives every recorded task of one agent
    to its function of today, and compares the answers. Effects of a function outside the mesh happen again: see
    `ctx.sandbox`.

    --check, --with and --limit without RUN are for all runs, or for those that were requested between --since and
    --until. Exit code 1 if something differs.
    """
    span = time_span(since, until)
    file = run is not None and run.endswith(RECORDING_END)
    calls = sandbox or bool(agent)
    modes = {
        "--step or --break": step or break_ is not None,
        "--check": check,
        "--with or --limit": with_ or (limit and not agent),
        "--run or --agent": calls,
    }
    chosen = [name for name, given in modes.items() if given]
    if len(chosen) > 1:
        raise misused("these are two modes", " and ".join(chosen), "Leave out one of them")
    given = Sandboxed(sandbox, set, from_task, agent, repeat, ignore, timeout, jobs, save)
    if not calls and (name := given.misplaced) is not None:
        raise misused(f"{name} goes with --run or --agent", name, "Add --run and RUN, or --agent NAME")
    if run is not None and (since or until):
        _require_window(file, check or with_ is not None or bool(limit) or (bool(agent) and not sandbox))
    if run is not None and file:
        session.use_recording(run)
        run = None
    if calls:
        return await sandboxed(session, run, span, given, limit or (), file=file)
    if check:
        from mesh.cli.commands.verify import check_log

        return await check_log(session, run, span)
    if with_ is not None or limit:
        from mesh.cli.commands.replay.what_if import variant_of, what_if

        return await what_if(session, run, span, variant_of(with_, limit or ()))
    if run is None and not file:
        raise misused("no run is named", "RUN", "Name one; `mesh run list` shows the latest")
    if step or break_ is not None:
        from mesh.cli.commands.replay.step_through import step_through

        return await step_through(session, run, break_)
    from mesh.cli.commands.replay.print_steps import print_recording, print_steps

    return await print_recording(session) if run is None else await print_steps(session, run)


def _require_window(file: bool, windowed: bool) -> None:
    """Raise InvalidInput if what is replayed has no time span. `windowed`: whether the mode takes one of a file."""
    if not file:
        raise misused("one run has no time span", "--since or --until", "Leave out RUN, or the time span")
    if not windowed:
        raise misused("this mode takes every run of the file", "--since or --until", "Leave out the time span")
