"""Prints errors as one line on stderr (or one JSON object), and gives the exit code of their class."""

import shlex
from collections.abc import Sequence
from typing import Any

from mesh.cli.framework.output import Output, Piece
from mesh.cli.framework.text import ago, moment
from mesh.core.errors import Ambiguous, MeshError, TopicsInvalid, TopologyInvalid
from mesh.core.protocol.event import rfc3339
from mesh.core.redaction import mask, mask_value

BROKEN_PIPE = 141
INTERRUPTED = 130
TERMINATED = 143
ERROR_CHARS_MAX = 16_000_000
"""The longest error in JSON: it may list very many problems."""
ID_CHARS = 12
"""Characters of a run's id that are shown beside a whole one."""
BUG_REMEDY = "This is a bug: please report it with the output of the same command with -vv"


def report(output: Output, error: MeshError, arguments: Sequence[str] = ()) -> int:
    """Print a MeshError and return its exit code. `arguments`: of the command, which a fix repeats."""
    if output.json:
        output.emit_error(mask_value("", error_json(error, arguments), ERROR_CHARS_MAX))
        return error.exit_code
    if isinstance(error, TopologyInvalid):
        output.warn(("error: ", "bold red"), f"{error.path}: {error.what}")
        for problem in error.problems:
            output.warn(
                "  ", (f"{error.path}:{problem.line}", "bold"), f": {mask(problem.what)}. ", (problem.remedy, "dim")
            )
    elif isinstance(error, TopicsInvalid) and len(error.problems) > 1:
        output.warn(("error: ", "bold red"), f"{mask(error.where)}: {len(error.problems)} problems")
        for text in error.problems:
            output.warn("  ", mask(text))
        output.warn("  ", (error.remedy, "dim"))
    else:
        output.warn(("error: ", "bold red"), *_sentence(error))
    if isinstance(error, Ambiguous):
        for one in error.candidates:
            repeats = f"  resend of {one.repeats[:ID_CHARS]}" if one.repeats else ""
            output.warn(f"  {moment(one.opened_ms)}  {ago(one.opened_ms)}  {one.type}  {one.state}", (repeats, "cyan"))
            output.warn("    ", (_command_for(one.run_id, error.name, arguments), "bold"), folds=False)
    return error.exit_code


def _command_for(run_id: str, name: str, arguments: Sequence[str]) -> str:
    """Return the command again with the id of a run in place of its ambiguous name."""
    if name not in arguments:
        return f"mesh run show {shlex.quote(run_id)}"
    return shlex.join(["mesh", *(run_id if text == name else text for text in arguments)])


def report_usage(output: Output, message: str, hint: str) -> int:
    """Print an error of the command line; return exit code 2."""
    message = mask(message)
    if output.json:
        output.emit_error({"code": "usage", "what": message, "remedy": hint, "exit_code": 2})
    else:
        output.warn(("error: ", "bold red"), f"{message} ", (hint, "dim"))
    return 2


def report_bug(output: Output, error: BaseException, stack: str) -> int:
    """Print an unexpected error, with its stack if -vv was given; return exit code 1."""
    what = mask(f"{type(error).__name__}: {error}")
    if output.json:
        output.emit_error({"code": "bug", "what": what, "remedy": BUG_REMEDY, "exit_code": 1})
    else:
        output.warn(("error: ", "bold red"), f"{what}. ", (BUG_REMEDY, "dim"))
    if output.verbosity >= 2:
        for line in mask(stack).splitlines():
            output.warn(line)
    return 1


def error_json(error: MeshError, arguments: Sequence[str] = ()) -> dict[str, Any]:
    """An error as `--json` shows it on stderr, under the key `error`."""
    found: dict[str, Any] = {
        "code": error.code,
        "what": error.what,
        "where": error.where,
        "expected": error.expected,
        "got": error.got,
        "remedy": error.remedy,
        "exit_code": error.exit_code,
    }
    if isinstance(error, TopologyInvalid):
        found["problems"] = [problem._asdict() for problem in error.problems]
    elif isinstance(error, TopicsInvalid):
        found["problems"] = list(error.problems)
    elif isinstance(error, Ambiguous):
        found["candidates"] = [
            {
                "run": one.run_id,
                "opened": rfc3339(one.opened_ms),
                "state": one.state,
                "type": one.type,
                "resend_of": one.repeats,
                "command": _command_for(one.run_id, error.name, arguments),
            }
            for one in error.candidates
        ]
    return found


def _sentence(error: MeshError) -> list[Piece]:
    text = str(error)
    remedy = error.remedy
    if remedy and text.endswith(remedy):
        return [text.removesuffix(remedy), (remedy, "dim")]
    return [text]
