"""Whether a command line that a page or a manifest shows is one that `mesh` accepts."""

from collections.abc import Sequence
from typing import Any

import typer
from typer.core import TyperGroup
from typer.main import get_command

from mesh.cli.app import app


def parses(arguments: Sequence[str]) -> bool:
    """Return whether the command line accepts these arguments. No command is run."""
    command: Any = get_command(app)
    rest, name, parent = list(arguments), "mesh", None
    try:
        while True:
            context = command.make_context(name, rest, parent=parent)
            if not isinstance(command, TyperGroup):
                return True
            found, command, rest = command.resolve_command(context, [*context._protected_args, *context.args])
            name, parent = str(found), context
    except typer.Exit:
        return True  # --help and --version
    except typer.TyperException:
        return False
