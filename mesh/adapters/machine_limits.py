"""Limits of the machine and the process: open files, memory, disk, threads. Exceeding them is no fault of the mesh."""

import errno
import os
import resource
from typing import Final, NamedTuple

from mesh.core.errors import ConfigInvalid, EnvironmentFault, MeshError

FILES_WANTED: Final = 65_536
"""Soft limit of open files that the process sets, as far as the hard limit allows."""
FILES_BASE: Final = 128
FILES_PER_AGENT: Final = 8
"""Open files that a process needs, and those for each agent: connections, threads, isolated processes. Measured: 37 for
six agents on one broker."""

_NO_THREAD: Final = "can't start new thread"
_FILES_REMEDY: Final = (
    "Raise it before the start: `ulimit -n 4096` (systemd: LimitNOFILE=, containers: --ulimit nofile=)"
)
_LACKS: Final = {
    errno.ENFILE: (
        "the machine may open no more files",
        "Raise it: `sysctl fs.file-max`, or end what holds files open",
    ),
    errno.ENOSPC: ("the disk is full", "Make room on it"),
    errno.EDQUOT: ("the disk quota is used up", "Make room, or raise the quota"),
    errno.ENOMEM: ("there is no more memory", "Give the process more (`ulimit -v`, the container's limit)"),
    errno.EAGAIN: (
        "no more processes or threads may be started",
        "Raise the limit: `ulimit -u`, pids.max of the container",
    ),
}
_FORBIDDEN: Final = {
    errno.EACCES: "permission denied",
    errno.EPERM: "the operation is not permitted",
    errno.EROFS: "the file system is read-only",
}


class FileLimit(NamedTuple):
    """The number of files that this process may open, and the number that it needs."""

    files_max: int
    files_needed: int


def raise_file_limit(agents: int) -> FileLimit:
    """Raise the soft limit of open files to FILES_WANTED, or as far as the hard limit allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILES_WANTED if hard == resource.RLIM_INFINITY else min(FILES_WANTED, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        except (OSError, ValueError):  # a system with a lower limit of its own: the old limit stays
            wanted = soft
        soft = wanted
    return FileLimit(FILES_WANTED if soft == resource.RLIM_INFINITY else soft, FILES_BASE + FILES_PER_AGENT * agents)


def environment_fault(error: BaseException) -> MeshError | None:
    """Return the error to report in place of one that the machine has caused, or None.

    EAGAIN is taken as the error of `fork`: code that reads or writes handles its own.
    """
    if isinstance(error, MemoryError):
        what, remedy = _LACKS[errno.ENOMEM]
        return EnvironmentFault(what, remedy=remedy)
    if isinstance(error, RuntimeError) and str(error) == _NO_THREAD:
        what, remedy = _LACKS[errno.EAGAIN]
        return EnvironmentFault(what, got=_NO_THREAD, remedy=remedy)
    if not isinstance(error, OSError) or error.errno is None:
        return None
    where = "" if error.filename is None else os.fsdecode(error.filename)
    got = f"{errno.errorcode.get(error.errno, 'errno')} ({os.strerror(error.errno)})"
    if error.errno == errno.EMFILE:
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        what, expected = (
            "this process may open no more files",
            f"a limit of at least {FILES_BASE}, and {FILES_PER_AGENT} an agent",
        )
        return EnvironmentFault(what, where=where, expected=expected, got=f"{limit:,}", remedy=_FILES_REMEDY)
    if error.errno in _LACKS:
        what, remedy = _LACKS[error.errno]
        return EnvironmentFault(what, where=where, got=got, remedy=remedy)
    if error.errno in _FORBIDDEN:
        return ConfigInvalid(
            _FORBIDDEN[error.errno], where=where, got=got, remedy="Grant this user the right, or name another path"
        )
    return None
