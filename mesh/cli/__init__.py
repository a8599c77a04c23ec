"""The command line: `mesh`. One file per noun the user types; importing this package costs nothing.

Manners of all commands: results on stdout, everything else on stderr; `--json` everywhere; exit codes by class (0 done,
1 the thing failed, 2 usage or configuration, 3 not found, 4 cannot reach, 5 refused, 6 timed out, 130 Ctrl-C, 143
SIGTERM); text that came with events never reaches the terminal unescaped; no request leaves the machine.
"""

import sys
from collections.abc import Sequence


def main() -> None:
    """The entry point of the command. Ctrl-C while Python still imports ends it as quietly as later."""
    try:
        from mesh.cli.app import execute

        code = execute(sys.argv[1:])
    except KeyboardInterrupt:
        code = 130
    sys.exit(code)


def parses(arguments: Sequence[str]) -> bool:
    """Whether the command line understands these arguments. Nothing is run."""
    from mesh.cli.app import understood

    return understood(arguments)
