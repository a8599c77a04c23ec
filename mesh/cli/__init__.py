"""The command line: `mesh`. Commands are imported when they are typed, so importing this package is cheap.

All commands write results to stdout and everything else to stderr, and take `--json`. Text that came with events is
escaped before it reaches the terminal. No command sends anything to a third party. Exit codes by class:

0 done, 1 failed, 2 usage or configuration, 3 not found, 4 not reachable, 5 refused, 6 timed out,
130 Ctrl-C, 143 SIGTERM.
"""

import sys


def main() -> None:
    """Run the command line. Ctrl-C during imports ends it without a traceback, as it does later."""
    try:
        from mesh.cli.app import execute

        code = execute(sys.argv[1:])
    except KeyboardInterrupt:
        code = 130
    sys.exit(code)
