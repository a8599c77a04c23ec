"""Registers functions as commands: each takes the common options and gets a `Session`.

    @command(app, "list", example="mesh run list --state open")
    async def list_runs(session: Session, *, limit: Annotated[int, typer.Option(...)] = 20) -> int | None: ...

The function returns the exit code; None means 0. A parameter whose type is a NamedTuple is a group: each field of it is
an option of the command, and the function gets them as one value.
"""

import inspect
from collections.abc import Callable, Coroutine
from typing import Annotated, Any, Final, NamedTuple, get_type_hints

import typer

from mesh.cli.framework.session import CommonOptions, Session
from mesh.core.errors import leaf_errors
from mesh.runtime.execution import loop_guard

PANEL: Final = "Everywhere"
PLAIN: Final[Any] = {"context_settings": {"help_option_names": ["-h", "--help"]}, "rich_markup_mode": None}
"""Help as plain text, which is quick and the same in a pipe."""
Answer = int | None
Function = Callable[..., Answer | Coroutine[Any, Any, Answer]]


def _option(name: str, default: Any, *flags: str, **more: Any) -> inspect.Parameter:
    type_ = str | None if default is None else type(default)
    annotation = Annotated[type_, typer.Option(*flags, rich_help_panel=PANEL, **more)]  # type: ignore[valid-type]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


COMMON: Final = (
    _option("log", None, "--log", metavar="URL", help="sqlite:PATH or kafka://HOST:PORT"),
    _option("board", None, "--board", metavar="URL", help="sqlite:PATH or redis://HOST:PORT"),
    _option("topology", None, "--topology", metavar="FILE", help="the mesh's topics.yaml"),
    _option("json", False, "--json", help="results as JSON Lines"),
    _option("quiet", False, "--quiet", "-q", help="results only"),
    _option("verbose", 0, "--verbose", "-v", count=True, show_default=False, help="verbose output; -vv debug output"),
    _option("no_color", False, "--no-color", help="no colour"),
)
"""The options that every command takes."""


class OutputClosed(Exception):
    """The reader of our output has closed it. Not an OSError: typer ends those with an exit code of its own."""


def command(app: typer.Typer, name: str, *, example: str) -> Callable[[Function], Function]:
    """Register a function as command `name` of `app`. Its help ends with `example`."""

    def register(function: Function) -> Function:
        app.command(name, epilog=f"Example:  {example}", help=inspect.getdoc(function))(_with_session(function))
        return function

    return register


def noun(help: str) -> typer.Typer:
    """Make a Typer for a noun with several commands: `mesh run list`."""
    app = typer.Typer(help=help, no_args_is_help=True, add_completion=False, **PLAIN)
    app.callback(help=help)(lambda: None)  # without it, Typer makes a noun with one command that command
    return app


def verb() -> typer.Typer:
    """Make a Typer for a word that is a command itself: `mesh up`."""
    return typer.Typer(add_completion=False, **PLAIN)


def given_options(group: NamedTuple) -> list[str]:
    """Return the options of a group that have another value than their default, as they are written."""
    changed = [name for name, default in group._field_defaults.items() if getattr(group, name) != default]
    declared = get_type_hints(type(group), include_extras=True)
    return [_flag(name, declared[name].__metadata__[0]) for name in changed]


def _flag(name: str, declared: Any) -> str:
    """Return an option as it is written. Typer takes the first name as a default until it makes the command."""
    names = (declared.default, *(declared.param_decls or ()))
    return next((each for each in names if isinstance(each, str) and each.startswith("--")), f"--{name}")


def _is_group(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, tuple) and hasattr(annotation, "_fields")


def _fields(group: Any) -> list[inspect.Parameter]:
    """Return the options of a group as parameters."""
    return [
        inspect.Parameter(
            name, inspect.Parameter.KEYWORD_ONLY, default=group._field_defaults[name], annotation=annotation
        )
        for name, annotation in get_type_hints(group, include_extras=True).items()
    ]


def _with_session(function: Function) -> Callable[..., None]:
    own = list(inspect.signature(function, eval_str=True).parameters.values())[1:]
    groups: dict[str, Any] = {each.name: each.annotation for each in own if _is_group(each.annotation)}
    parameters = [each for one in own for each in (_fields(one.annotation) if one.name in groups else [one])]

    def run(context: typer.Context, **given: Any) -> None:
        from mesh.cli.framework.logs import configure

        common = CommonOptions(**{name: given.pop(name) for name in CommonOptions._fields})
        session = Session(common.merged_over(context.obj))
        context.find_root().obj = session.options
        configure(session.output)
        for name, group in groups.items():
            given[name] = group(**{field: given.pop(field) for field in group._fields})
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
