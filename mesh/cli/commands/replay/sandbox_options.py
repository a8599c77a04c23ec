"""The options of `mesh replay` for its modes that call functions: --run and --agent."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Final, NamedTuple

import typer

from mesh.core.errors import InvalidInput
from mesh.core.expression.field_path import ConditionInvalid

if TYPE_CHECKING:
    from mesh.core.replay.answer_diff import Ignored

TIMEOUT: Final = "60s"
SandboxOption = Annotated[bool, typer.Option("--run", help="run it again in a sandbox, by the functions of today")]
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
    int, typer.Option("--jobs", metavar="N", min=0, help="with --agent: calls at a time; 0: as a worker, at most 8")
]
SaveOption = Annotated[
    str | None,
    typer.Option(
        "--save", metavar="FILE", help="with --agent: differing answers; with --run: the new run, a recording"
    ),
]


class CallOptions(NamedTuple):
    """The options of --run and --agent, as they are given."""

    sandbox: SandboxOption = False
    set: SetOption = None
    from_task: FromTaskOption = ""
    agent: AgentOption = None
    repeat: RepeatOption = 1
    ignore: IgnoreOption = None
    timeout: TimeoutOption = TIMEOUT
    jobs: JobsOption = 0
    save: SaveOption = None


def ignored_fields(paths: Sequence[str] | None) -> "Ignored":
    """Read the paths of --ignore. Raises InvalidInput."""
    from mesh.core.replay.answer_diff import Ignored

    try:
        return Ignored(paths or ())
    except ConditionInvalid as error:
        raise InvalidInput(
            error.what, code="bad_value", where=f"--ignore, {error.where}", remedy=error.remedy
        ) from error
