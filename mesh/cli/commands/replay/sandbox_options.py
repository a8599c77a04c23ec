"""The options of `mesh replay` for its modes that call functions: --run and --agent."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Final, NamedTuple

import typer

from mesh.cli.framework.logs import hide_sandbox
from mesh.cli.framework.selectors import TimeSpan
from mesh.cli.framework.session import Session
from mesh.cli.framework.text import seconds
from mesh.core.errors import InvalidInput
from mesh.core.expression.field_path import ConditionInvalid

if TYPE_CHECKING:
    from mesh.core.replay.answer_diff import Ignored

TIMEOUT: Final = "60s"

RunOption = Annotated[bool, typer.Option("--run", help="run it again in a sandbox, by the functions of today")]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", metavar="PATH=VALUE", help="with --run: change a field of the request")
]
FromTaskOption = Annotated[
    str, typer.Option("--from", metavar="TASK", help="with --run: begin with a task, named by id or agent")
]
AgentOption = Annotated[
    list[str] | None,
    typer.Option("--agent", metavar="NAME[=MODULE:FUNCTION]", help="its recorded tasks; with --run: swap a function"),
]
RepeatOption = Annotated[int, typer.Option("--repeat", metavar="N", min=1, max=10_000, help="with --run: so often")]
IgnoreOption = Annotated[
    list[str] | None, typer.Option("--ignore", metavar="PATH", help="a field that may differ; repeatable")
]
TimeoutOption = Annotated[str, typer.Option("--timeout", metavar="TIME", help="with --run: how long a run may take")]
JobsOption = Annotated[
    int, typer.Option("--jobs", metavar="N", min=0, help="with --agent: calls at a time; 0: as a worker")
]
SaveOption = Annotated[
    str | None,
    typer.Option(
        "--save", metavar="FILE", help="with --agent: differing answers; with --run: the new run, a recording"
    ),
]


class Sandboxed(NamedTuple):
    """The options of --run and --agent, as they were given."""

    run: bool
    set: Sequence[str] | None
    from_task: str
    agent: Sequence[str] | None
    repeat: int
    ignore: Sequence[str] | None
    timeout: str
    jobs: int
    save: str | None

    @property
    def misplaced(self) -> str | None:
        """The first option that was given without --run and --agent."""
        for name in ("set", "ignore", "jobs", "save"):
            if getattr(self, name):
                return f"--{name}"
        return self.of_run

    @property
    def of_run(self) -> str | None:
        """The first option that was given and goes with --run alone."""
        given = {"--set": self.set, "--from": self.from_task, "--repeat": self.repeat > 1}
        given["--timeout"] = self.timeout != TIMEOUT
        return next((name for name, is_given in given.items() if is_given), None)


async def sandboxed(
    session: Session, run: str | None, span: TimeSpan, given: Sandboxed, limits: Sequence[str], *, file: bool
) -> int:
    """Replay in the mode that these options choose. `file`: the session reads a recording."""
    from mesh.cli.commands.replay.agent_topic import AgentOptions, replay_tasks, swap_of, todays_topology
    from mesh.cli.commands.replay.sandbox_run import SandboxOptions, sandbox_run

    hide_sandbox(session.output)
    if given.run:
        if run is None and not file:
            raise misused("no run is named", "RUN", "Name one, or leave out --run to replay the tasks of --agent")
        if given.jobs:
            raise misused("a run is taken again by a worker as it is", "--jobs", "Leave it out")
        options = SandboxOptions(
            given.set or (),
            given.from_task,
            given.agent or (),
            given.repeat,
            given.ignore or (),
            seconds("--timeout", given.timeout),
            given.save,
        )
        return await sandbox_run(session, run, options)
    if run is not None:
        raise misused("--agent alone is for all runs", "RUN", "Add --run to run this one again, or leave out RUN")
    if (name := given.of_run) is not None:
        raise misused("this goes with --run", name, "Add RUN and --run")
    if len(given.agent or ()) != 1 or len(limits) > 1:
        raise misused("one agent at a time", "--agent, --limit", "Give each once")
    name, function = swap_of(todays_topology(session), (given.agent or ("",))[0])
    limit = _count(limits[0]) if limits else None
    agent = AgentOptions(name, function, limit, given.jobs, given.ignore or (), given.save)
    return await replay_tasks(session, span, agent)


def ignored_fields(paths: Sequence[str]) -> "Ignored":
    """Read the paths of --ignore. Raises InvalidInput."""
    from mesh.core.replay.answer_diff import Ignored

    try:
        return Ignored(paths)
    except ConditionInvalid as error:
        raise InvalidInput(
            error.what, code="bad_value", where=f"--ignore, {error.where}", remedy=error.remedy
        ) from error


def _count(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) < 10**12:
        raise InvalidInput(
            "this is no number of tasks", code="bad_value", where="--limit", expected="1 or more", got=text[:64]
        )
    return int(text)


def misused(what: str, where: str, remedy: str) -> InvalidInput:
    return InvalidInput(what, code="usage", where=where, remedy=remedy)
