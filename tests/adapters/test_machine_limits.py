"""Faults of the machine are told as such, and the limit of open files is raised at the start."""

import errno
import os
import resource
import subprocess
import sys

import pytest

from mesh.adapters.machine_limits import FILES_BASE, FILES_PER_AGENT, FILES_WANTED, environment_fault
from mesh.core.errors import ConfigInvalid, EnvironmentFault


def of(code: int, *path: str) -> OSError:
    return OSError(code, os.strerror(code), *path)


@pytest.mark.parametrize(
    ("error", "what", "remedy"),
    [
        (of(errno.EMFILE), "this process may open no more files", "ulimit -n"),
        (of(errno.ENFILE), "the machine may open no more files", "fs.file-max"),
        (of(errno.ENOSPC), "the disk is full", "Make room"),
        (of(errno.EDQUOT), "the disk quota is used up", "quota"),
        (of(errno.ENOMEM), "there is no more memory", "ulimit -v"),
        (of(errno.EAGAIN), "no more processes or threads may be started", "ulimit -u"),
        (MemoryError(), "there is no more memory", "ulimit -v"),
        (RuntimeError("can't start new thread"), "no more processes or threads may be started", "ulimit -u"),
    ],
)
def test_a_lack_is_named_with_its_fix(error: BaseException, what: str, remedy: str) -> None:
    told = environment_fault(error)
    assert isinstance(told, EnvironmentFault)
    assert told.what == what
    assert remedy in told.remedy
    assert (told.exit_code, told.retriable, told.code) == (4, True, "environment")


def test_too_many_open_files_are_reported_with_limit_and_path() -> None:
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    assert str(environment_fault(of(errno.EMFILE, "/a/b"))) == (
        f"/a/b: this process may open no more files; expected a limit of at least {FILES_BASE}, and {FILES_PER_AGENT}"
        f" an agent, got {limit:,}. Raise it before the start: `ulimit -n 4096` (systemd: LimitNOFILE=, containers:"
        " --ulimit nofile=)"
    )


@pytest.mark.parametrize("code", [errno.EACCES, errno.EPERM, errno.EROFS])
def test_a_missing_right_is_reported_with_its_path(code: int) -> None:
    told = environment_fault(of(code, "/a/b"))
    assert isinstance(told, ConfigInvalid)
    assert (told.where, told.exit_code, told.retriable) == ("/a/b", 2, False)
    assert errno.errorcode[code] in told.got


@pytest.mark.parametrize("error", [ValueError("x"), RuntimeError("x"), OSError("x"), of(errno.ENOENT, "/a"), OSError()])
def test_other_errors_are_not_of_the_machine(error: BaseException) -> None:
    assert environment_fault(error) is None


@pytest.mark.parametrize(("soft", "hard", "files_max"), [(16, 64, 64), (40, 40, 40), (64, 4_096, 4_096)])
def test_the_limit_of_open_files_is_raised_as_far_as_it_may_be(soft: int, hard: int, files_max: int) -> None:
    """In a process of its own, since a hard limit cannot be raised again."""
    code = (
        f"import resource as r\nfrom mesh.adapters.machine_limits import raise_file_limit\n"
        f"r.setrlimit(r.RLIMIT_NOFILE, ({soft}, {hard}))\nprint(*raise_file_limit(10), *r.getrlimit(r.RLIMIT_NOFILE))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert [*map(int, done.stdout.split())] == [files_max, FILES_BASE + 10 * FILES_PER_AGENT, files_max, hard]
    assert files_max <= FILES_WANTED
