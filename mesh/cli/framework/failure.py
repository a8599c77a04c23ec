"""Prints errors as one line on stderr (or one JSON object), and gives the exit code of their class."""

from typing import Any

from mesh.cli.framework.output import Output, Piece
from mesh.core.errors import MeshError, TopicsInvalid, TopologyInvalid
from mesh.core.redaction import mask, mask_value

BROKEN_PIPE = 141
INTERRUPTED = 130
TERMINATED = 143
ERROR_CHARS_MAX = 16_000_000
"""The longest error in JSON: it may list very many problems."""
BUG_REMEDY = "This is a bug: please report it with the output of the same command with -vv"


def report(output: Output, error: MeshError) -> int:
    """Print a MeshError and return its exit code."""
    if output.json:
        output.emit_error(mask_value("", error_json(error), ERROR_CHARS_MAX))
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
    return error.exit_code


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


def error_json(error: MeshError) -> dict[str, Any]:
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
    return found


def _sentence(error: MeshError) -> list[Piece]:
    text = str(error)
    remedy = error.remedy
    if remedy and text.endswith(remedy):
        return [text.removesuffix(remedy), (remedy, "dim")]
    return [text]
