"""The meaning of SQLite's errors: an `Unavailable` that says what happened and what to do."""

import sqlite3

from mesh.core.errors import Unavailable

_MEANINGS = {
    "SQLITE_BUSY": ("the file is locked by another process", "Find the process that locks it (`fuser`) and try again"),
    "SQLITE_LOCKED": ("a table of the file is locked", "Try again"),
    "SQLITE_FULL": ("the disk is full", "Make room; nothing of this write was kept"),
    "SQLITE_READONLY": ("the file cannot be written", "Give this user write permission on the file and its directory"),
    "SQLITE_PERM": ("the file may not be opened", "Give this user permission on the file and its directory"),
    "SQLITE_CANTOPEN": (
        "the file cannot be opened",
        "Check that its directory exists and may be written, and that this process may open more files (`ulimit -n`)",
    ),
    "SQLITE_NOTADB": ("the file is no SQLite database", "Name another file, or move this one away"),
    "SQLITE_CORRUPT": ("the file is damaged", "Stop all processes, keep a copy, run `sqlite3 FILE .recover`"),
    "SQLITE_IOERR": ("the disk refused to read or write", "Check the disk and the limits on file size"),
}


def is_busy(error: sqlite3.Error) -> bool:
    """Return whether another connection has the lock, so that another try may succeed."""
    return primary_name(error) in ("SQLITE_BUSY", "SQLITE_LOCKED")


def primary_name(error: sqlite3.Error) -> str:
    """Return the first two words of the error's name: `SQLITE_IOERR_WRITE` → `SQLITE_IOERR`."""
    name: str = getattr(error, "sqlite_errorname", None) or ""
    return "_".join(name.split("_")[:2])


def unavailable(kind: type[Unavailable], error: sqlite3.Error, *, operation: str, where: str) -> Unavailable:
    """Make the error for SQLite's answer to `operation` on the file `where`."""
    what, remedy = _MEANINGS.get(primary_name(error), ("SQLite refused", ""))
    detail = getattr(error, "sqlite_errorname", None) or type(error).__name__
    return kind(f"{operation} failed: {what} ({detail}: {error})", where=where, remedy=remedy)


def late(kind: type[Unavailable], *, operation: str, where: str, timeout_ms: float) -> Unavailable:
    """Make the error for a write whose verdict did not come in time."""
    return kind(
        f"{operation} was not acknowledged within {timeout_ms:.0f} ms; it may or may not happen yet",
        where=where,
        remedy="Another process holds the file locked, or the disk is slow; try again",
    )
