"""Command lines that are typed in this process, and which answers are right."""

import contextlib
import io
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mesh.cli.app import execute

PROJECT = Path(__file__).parents[1] / "cli/project"
CODES = {0, 1, 2, 3, 4, 5, 6}


def typed(*arguments: str) -> tuple[int, str, str]:
    """Exit code and output of one command line, in this process."""
    out, err, before = io.StringIO(), io.StringIO(), sys.stdin
    with open(os.devnull) as nothing, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        sys.stdin = nothing
        try:
            code = execute(list(arguments))
        finally:
            sys.stdin = before
    return code, out.getvalue(), err.getvalue()


def expect_no_bug(given: object, code: int, err: str) -> None:
    """The exit code is one of the table, and neither a traceback nor a bug is told."""
    assert code in CODES, (given, code, err)
    assert "Traceback" not in err, (given, err)
    assert "This is a bug" not in err, (given, err)
    assert '"code":"bug"' not in err, (given, err)


@contextmanager
def project_in(folder: Path) -> Iterator[Path]:
    """A folder with a mesh that is not up, as working directory."""
    shutil.copytree(PROJECT, folder, ignore=shutil.ignore_patterns("__pycache__"))
    before = Path.cwd()
    environ = dict(os.environ)
    os.environ.update(XDG_CONFIG_HOME=str(folder / "config"), XDG_DATA_HOME=str(folder / "data"), NO_COLOR="1")
    os.chdir(folder)
    try:
        assert typed("topics", "create")[0] == 0
        yield folder
    finally:
        os.chdir(before)
        os.environ.clear()
        os.environ.update(environ)
