"""`mesh replay`: take a recorded run again, in one of its modes. Reads only."""

from typing import Annotated, Final

import typer

from mesh.cli.framework.options import command, verb
from mesh.cli.framework.selectors import SinceOption, UntilOption, time_span
from mesh.cli.framework.session import Session
from mesh.core.errors import InvalidInput

app = verb()
RECORDING_END: Final = ".jsonl"
"""End of the name of a file that stands in place of a run."""


@command(app, "replay", example="mesh replay 3f2a -v")
async def replay(
    session: Session,
    run: Annotated[
        str | None,
        typer.Argument(
            metavar="[RUN]", help="a run's id or its beginning, a request's id, a subject, or a recording.jsonl"
        ),
    ] = None,
    *,
    step: Annotated[bool, typer.Option("--step", help="one event at a time, forwards and back")] = False,
    break_: Annotated[
        str | None, typer.Option("--break", metavar="EXPRESSION", help="as --step; stop where the condition holds")
    ] = None,
    check: Annotated[bool, typer.Option("--check", help="compare what is decided with what was published")] = False,
    with_: Annotated[
        str | None, typer.Option("--with", metavar="FILE", help="what if: decide under this topics.yaml")
    ] = None,
    limit: Annotated[
        list[str] | None, typer.Option("--limit", metavar="WORD=VALUE", help="what if: under this limit; repeatable")
    ] = None,
    since: SinceOption = None,
    until: UntilOption = None,
) -> int:
    """Decide a recorded run again, and show each of its events.

    The command shows what each event changed, and why each effect followed. Nothing is written and no agent is called.
    -v shows payloads, too.

    --step shows one event at a time, with the keys on the screen (R, A and B search backwards); in a pipe it prints
    all. --break takes the language of `when:` over agent, asked,
    type, kind, code, depth, attempt, ending and data.

    --with and --limit decide the recorded events under another topology or other limits (`depth_max=3`), with the
    recorded answers. Where a run would ask an agent that was not asked then, it is unknown from here.

    --check, --with and --limit without RUN are for all runs, or for those that were requested between --since and
    --until. Exit code 1 if something differs.
    """
    span = time_span(since, until)
    if run is not None and (since or until):
        raise _misused("one run has no time span", "--since or --until", "Leave out RUN, or the time span")
    modes = {"--step or --break": step or break_ is not None, "--check": check, "--with or --limit": with_ or limit}
    chosen = [name for name, given in modes.items() if given]
    if len(chosen) > 1:
        raise _misused("these are two modes", " and ".join(chosen), "Leave out one of them")
    file = run is not None and run.endswith(RECORDING_END)
    if run is not None and file:
        session.use_recording(run)
        run = None
    if check:
        from mesh.cli.commands.verify import check_log

        return await check_log(session, run, span)
    if with_ is not None or limit:
        from mesh.cli.commands.replay.what_if import variant_of, what_if

        return await what_if(session, run, span, variant_of(with_, limit or ()))
    if run is None and not file:
        raise _misused("no run is named", "RUN", "Name one; `mesh run list` shows the latest")
    if step or break_ is not None:
        from mesh.cli.commands.replay.step_through import step_through

        return await step_through(session, run, break_)
    from mesh.cli.commands.replay.print_steps import print_recording, print_steps

    return await print_recording(session) if run is None else await print_steps(session, run)


def _misused(what: str, where: str, remedy: str) -> InvalidInput:
    return InvalidInput(what, code="usage", where=where, remedy=remedy)
