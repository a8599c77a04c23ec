"""The root of the command line: commands are imported when they are typed, errors become exit codes."""

import errno
import importlib
import os
import sys
import traceback
from collections.abc import Sequence
from typing import Annotated, Any, Final

import typer
from typer.core import TyperGroup
from typer.main import get_command

from mesh.app.compiled_core import require_fresh
from mesh.cli.framework.failure import BROKEN_PIPE, INTERRUPTED, report, report_bug, report_usage
from mesh.cli.framework.options import PANEL, PLAIN, OutputClosed
from mesh.cli.framework.output import Output
from mesh.cli.framework.session import CommonOptions
from mesh.cli.framework.standard_streams import wait_for_output
from mesh.core.errors import ConfigInvalid, EnvironmentFault, InvalidInput, MeshError, leaf_errors
from mesh.core.suggest import nearest
from mesh.core.text_encoding import text_flaw

COMMANDS: Final = {
    **{name: f"{name}:app" for name in ("demo", "init", "up")},
    "publish": "runs.publish:app",
    "run": "runs.run:app",
    "stop": "switches.stop_resume:stop_app",
    "resume": "switches.stop_resume:resume_app",
    "agents": "agents:app",
    **{name: f"metrics.{name}:app" for name in ("top", "doctor", "lag", "cost", "windows")},
    **{name: f"{name}:app" for name in ("topics", "check")},
    "dead": "dead_letters.dead:app",
    "replay": "replay.replay:app",
    "test": "test:app",
    **{name: f"{name}:app" for name in ("board", "verify", "gc")},
    "break": "switches.break_unbreak:break_app",
    "unbreak": "switches.break_unbreak:unbreak_app",
    **{name: f"{name}:app" for name in ("bench", "export", "config", "version")},
}
"""Command → its module below mesh.cli.commands and the Typer in it, in the order of `mesh --help`."""
UNWRITABLE = (errno.EBADF, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.ENOSPC)
UNUSABLE = (
    *(errno.EACCES, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG),
    *(errno.ENOENT, errno.ENOTDIR, errno.EPERM, errno.EROFS),
)
"""Errors of a path that this user cannot use."""
ARGUMENT_CHARS_MAX = 80
"""Longer arguments are cut in errors."""
SIMILARITY_MIN = 0.6
"""One wrong letter in a word of three leaves a similarity of two thirds."""


class LazyCommands(TyperGroup):
    """The commands of COMMANDS, each imported when it is needed."""

    def list_commands(self, ctx: Any) -> list[str]:
        """All commands, in the order of COMMANDS."""
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command of this name; None if there is none."""
        if cmd_name not in COMMANDS:
            return None
        module, _, name = COMMANDS[cmd_name].partition(":")
        command = get_command(getattr(importlib.import_module(f"mesh.cli.commands.{module}"), name))
        command.name = cmd_name
        return command

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Resolve a command as typer does, with a suggestion that needs no import."""
        if args and not args[0].startswith("-") and args[0] not in COMMANDS:
            near = nearest(args[0], COMMANDS, SIMILARITY_MIN)
            ctx.fail(f"No such command {args[0]!r}." + (f" Did you mean {near!r}?" if near else ""))
        return super().resolve_command(ctx, args)


app = typer.Typer(
    cls=LazyCommands,
    name="mesh",
    no_args_is_help=True,
    **PLAIN,
    help="An event-driven agent mesh: an event goes in, agents work, an outcome comes out.",
    epilog="Example:  mesh demo",
)


def _show_version(requested: bool) -> None:
    if requested:
        from mesh.cli.commands.version import text

        sys.stdout.write(text() + "\n")
        raise typer.Exit


@app.callback()
def root(
    context: typer.Context,
    log: Annotated[str | None, typer.Option(hidden=True)] = None,
    board: Annotated[str | None, typer.Option(hidden=True)] = None,
    topology: Annotated[str | None, typer.Option(hidden=True)] = None,
    json: Annotated[bool, typer.Option("--json", help="results as JSON Lines", rich_help_panel=PANEL)] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", hidden=True)] = False,
    verbose: Annotated[int, typer.Option("--verbose", "-v", count=True, hidden=True)] = 0,
    no_color: Annotated[bool, typer.Option("--no-color", help="no colour", rich_help_panel=PANEL)] = False,
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_show_version, is_eager=True, help="print the version", rich_help_panel=PANEL
        ),
    ] = False,
) -> None:
    """Take the options that may stand before the command as well as behind it."""
    context.obj = CommonOptions(log, board, topology, json, quiet, verbose, no_color)


def execute(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit code."""
    if "--no-color" in arguments:
        os.environ["NO_COLOR"] = "1"
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by the caller: `mesh run list >&-`
            setattr(sys, name, open(os.devnull, "r" if name == "stdin" else "w", encoding="utf-8"))  # noqa: SIM115
    wait_for_output()
    if "_MESH_COMPLETE" in os.environ:
        return _complete(arguments)
    try:
        code = _execute(arguments)
        sys.stdout.flush()
    except (OutputClosed, BrokenPipeError):
        code = BROKEN_PIPE
    except OSError as error:
        sys.stderr.write(f"error: the output cannot be written: {error.strerror}\n")
        code = 1
    else:
        return code
    # The rest of the buffer cannot be written. Without this, Python reports that once more when it flushes at exit.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return code


def _complete(arguments: Sequence[str]) -> int:
    """Answer a completion request of the shell, which comes in the environment."""
    try:
        return int(get_command(app).main(list(arguments), prog_name="mesh", standalone_mode=False) or 0)
    except (typer.TyperException, MeshError, OSError):
        return 1  # silent: output would land in the user's prompt


def _execute(arguments: Sequence[str]) -> int:
    verbosity = sum(a.count("v") for a in arguments if a.strip("v") == "-") + arguments.count("--verbose")
    output = Output(json="--json" in arguments, verbosity=verbosity, colour="--no-color" not in arguments)
    try:
        require_fresh()
        _require_text(arguments)
        return int(get_command(app).main(list(arguments), prog_name="mesh", standalone_mode=False) or 0)
    except typer.TyperException as error:
        context = getattr(error, "ctx", None)
        if type(error).__name__ == "NoArgsIsHelpError":
            sys.stderr.write(f"{error.format_message()}\n")
            return 2
        path = "mesh" if context is None else context.command_path
        return report_usage(output, error.format_message(), f"`{path} --help` shows how")
    except MeshError as error:
        return report(output, error, arguments)
    except BaseExceptionGroup as group:
        return _report_group(output, group, arguments)
    except (KeyboardInterrupt, typer.Abort):
        output.note("interrupted")
        return INTERRUPTED
    except OutputClosed:
        raise
    except OSError as error:
        if error.filename is None and error.errno in UNWRITABLE:
            raise
        return _report_unexpected(output, error, traceback.format_exc())
    except Exception as error:  # noqa: BLE001  # the last resort: a bug becomes one line
        return _report_unexpected(output, error, traceback.format_exc())


def _report_unexpected(output: Output, error: BaseException, stack: str) -> int:
    """Report an error that is not a MeshError: of the machine, about a file, or a bug."""
    from mesh.adapters.machine_limits import environment_fault

    known = environment_fault(error)
    if isinstance(error, OSError) and error.filename is not None and not isinstance(known, EnvironmentFault):
        kind = ConfigInvalid if error.errno in UNUSABLE else MeshError
        known = kind(f"{error.strerror}", where=str(error.filename))
    return report_bug(output, error, stack) if known is None else report(output, known)


def _require_text(arguments: Sequence[str]) -> None:
    for argument in arguments:
        flaw = text_flaw(argument)
        if flaw:
            raise InvalidInput(f"an argument {flaw}", code="usage", where=ascii(argument[:ARGUMENT_CHARS_MAX]))


def _report_group(output: Output, group: BaseExceptionGroup[BaseException], arguments: Sequence[str]) -> int:
    """Report one error of several concurrent tasks: the first MeshError, if there is one."""
    found = leaf_errors(group)
    known = next((leaf for leaf in found if isinstance(leaf, MeshError)), None)
    if known is not None:
        return report(output, known, arguments)
    if any(isinstance(leaf, KeyboardInterrupt) for leaf in found):
        return INTERRUPTED
    return _report_unexpected(output, found[0], "".join(traceback.format_exception(group)))
