"""How a function becomes a command: every one takes the same common options and gets a `Session`.

    @command(app, "list", example="mesh run list --state open")
    async def list_runs(session: Session, *, limit: Annotated[int, typer.Option(...)] = 20) -> int | None: ...

The answer of the function is the exit code; None is 0.
"""

import inspect
from collections.abc import Callable, Coroutine
from typing import Annotated, Any

import typer

from mesh.cli.framework.session import CommonOptions, Session
from mesh.core.errors import leaf_errors
from mesh.runtime.execution import loop_guard

PANEL = "Everywhere"
Answer = int | None
Function = Callable[..., Answer | Coroutine[Any, Any, Answer]]


COMMON = (
    inspect.Parameter(
        "log",
        inspect.Parameter.KEYWORD_ONLY,
        default=None,
        annotation=Annotated[
            str | None,
            typer.Option("--log", metavar="URL", help="sqlite:PATH or kafka://HOST:PORT", rich_help_panel=PANEL),
        ],
    ),
    inspect.Parameter(
        "board",
        inspect.Parameter.KEYWORD_ONLY,
        default=None,
        annotation=Annotated[
            str | None,
            typer.Option("--board", metavar="URL", help="sqlite:PATH or redis://HOST:PORT", rich_help_panel=PANEL),
        ],
    ),
    inspect.Parameter(
        "topology",
        inspect.Parameter.KEYWORD_ONLY,
        default=None,
        annotation=Annotated[
            str | None,
            typer.Option("--topology", metavar="FILE", help="the mesh's topics.yaml", rich_help_panel=PANEL),
        ],
    ),
    inspect.Parameter(
        "json",
        inspect.Parameter.KEYWORD_ONLY,
        default=False,
        annotation=Annotated[bool, typer.Option("--json", help="results as JSON Lines", rich_help_panel=PANEL)],
    ),
    inspect.Parameter(
        "quiet",
        inspect.Parameter.KEYWORD_ONLY,
        default=False,
        annotation=Annotated[bool, typer.Option("--quiet", "-q", help="results only", rich_help_panel=PANEL)],
    ),
    inspect.Parameter(
        "verbose",
        inspect.Parameter.KEYWORD_ONLY,
        default=0,
        annotation=Annotated[
            int,
            typer.Option(
                "--verbose", "-v", count=True, show_default=False, help="tell more; -vv all", rich_help_panel=PANEL
            ),
        ],
    ),
    inspect.Parameter(
        "no_color",
        inspect.Parameter.KEYWORD_ONLY,
        default=False,
        annotation=Annotated[bool, typer.Option("--no-color", help="no colour", rich_help_panel=PANEL)],
    ),
)


class OutputClosed(Exception):
    """Whoever read our output has gone. No OSError, since typer has an exit code of its own for those."""


def command(app: typer.Typer, name: str, *, example: str) -> Callable[[Function], Function]:
    """Register a function as command `name` of `app`. `example` stands at the end of its help."""

    def register(function: Function) -> Function:
        app.command(name, epilog=f"Example:  {example}", help=inspect.getdoc(function))(_with_session(function))
        return function

    return register


def noun(help: str) -> typer.Typer:
    """A Typer for a noun with several commands: `mesh run list`."""
    app = typer.Typer(help=help, no_args_is_help=True, add_completion=False, **PLAIN)
    app.callback(help=help)(_nothing)
    return app


def verb() -> typer.Typer:
    """A Typer for a word that is a command itself: `mesh up`."""
    return typer.Typer(add_completion=False, **PLAIN)


def _nothing() -> None:
    """Typer makes a noun with a single command that command, unless there is a callback."""


PLAIN: Any = {"context_settings": {"help_option_names": ["-h", "--help"]}, "rich_markup_mode": None}
"""Help as plain text: calm, quick, the same in a pipe."""


def take_common_options(given: dict[str, Any]) -> CommonOptions:
    """Take the common options out of what typer handed over."""
    return CommonOptions(**{name: given.pop(name) for name in CommonOptions._fields})


def _with_session(function: Function) -> Callable[..., None]:
    own = inspect.signature(function, eval_str=True)
    parameters = list(own.parameters.values())[1:]

    def run(context: typer.Context, **given: Any) -> None:
        from mesh.cli.framework.logs import configure

        session = Session(take_common_options(given).over(context.obj))
        context.find_root().obj = session.wanted
        configure(session.output)
        try:
            answer = function(session, **given)
            if isinstance(answer, Coroutine):
                answer = loop_guard.run(answer)
        except (BrokenPipeError, BaseExceptionGroup) as error:
            if any(isinstance(leaf, BrokenPipeError) for leaf in leaf_errors(error)):
                raise OutputClosed from error
            raise
        raise typer.Exit(answer or 0)

    context = inspect.Parameter("context", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context)
    run.__signature__ = inspect.Signature([context, *parameters, *COMMON])  # type: ignore[attr-defined]
    run.__annotations__ = {p.name: p.annotation for p in (context, *parameters, *COMMON)}
    run.__name__ = function.__name__
    return run
