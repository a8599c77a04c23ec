"""`mesh replay`: take a recorded run again, in one of its modes."""

from typing import Annotated, Final

import typer

from mesh.cli.commands.replay.modes import AGENT, CHECK, RESEND, SANDBOX, STEP, WHAT_IF, choose
from mesh.cli.commands.replay.resend_options import SendOptions
from mesh.cli.commands.replay.sandbox_options import CallOptions
from mesh.cli.framework.options import command, given_options, verb
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
    typer.Option("--limit", metavar="WORD=VALUE|N", help="what if: under this limit; of --agent, --resend: N at most"),
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
    since: SinceOption = None,
    until: UntilOption = None,
    calls: CallOptions,
    send: SendOptions,
) -> int:
    """Decide a recorded run again, and show each of its events.

    The command shows what each event changed, and why each effect followed. Without --resend it writes nothing, and
    without --run and --agent it calls no agent. -v shows payloads, too.

    --step shows one event at a time, with the keys on the screen (R, A and B search backwards); in a pipe it prints
    all. --break takes the language of `when:` over agent, asked,
    type, kind, code, depth, attempt, ending and data.

    --with and --limit decide the recorded events under another topology or other limits (`depth_max=3`), with the
    recorded answers. If a run would call an agent that was not called then, its rest is unknown.

    --run calls the functions of today with the recorded request, on a private mesh in a temporary folder, with the
    board as it stood then, and compares outcome and answers. --agent without RUN gives every recorded task of one agent
    to its function of today, and compares the answers. Effects of a function outside the mesh happen again: see
    `ctx.sandbox`.

    --resend shows which requests would go into an ingress topic again, of this mesh or of another one, and with --yes
    sends them. A request that was sent is not sent again. After an interruption, the same command sends the rest.

    --check, --with, --limit and --resend without RUN are for all runs, or for those requested between --since and
    --until. Exit code 1 if something differs, or if a request cannot be sent (also without --yes).
    """
    span, limits = time_span(since, until), limit or ()
    is_file = run is not None and run.endswith(RECORDING_END)
    counts = bool(calls.agent) or send.resend
    chosen = {
        STEP: step or break_ is not None,
        CHECK: check,
        WHAT_IF: with_ or (limits and not counts),
        SANDBOX: calls.sandbox,
        AGENT: calls.agent and not calls.sandbox,
        RESEND: send.resend,
    }
    others = {"--limit": limit, "--since": since, "--until": until}
    given = [*given_options(calls), *given_options(send), *(name for name, value in others.items() if value)]
    mode = choose(chosen, [one for one in given if one not in ("--run", "--resend")], run=run, is_file=is_file)
    if run is not None and is_file:
        session.use_recording(run)
        run = None
    if mode is SANDBOX:
        from mesh.cli.commands.replay.sandbox_run import sandbox_run

        return await sandbox_run(session, run, calls)
    if mode is AGENT:
        from mesh.cli.commands.replay.agent_topic import replay_tasks

        return await replay_tasks(session, span, calls, limits)
    if mode is RESEND:
        from mesh.cli.commands.replay.resend_requests import resend_requests

        return await resend_requests(session, run, span, send, limits)
    if mode is CHECK:
        from mesh.cli.commands.verify import check_log

        return await check_log(session, run, span)
    if mode is WHAT_IF:
        from mesh.cli.commands.replay.what_if import variant_of, what_if

        return await what_if(session, run, span, variant_of(with_, limits))
    if mode is STEP:
        from mesh.cli.commands.replay.step_through import step_through

        return await step_through(session, run, break_)
    from mesh.cli.commands.replay.print_steps import print_recording, print_steps

    return await print_recording(session) if run is None else await print_steps(session, run)
