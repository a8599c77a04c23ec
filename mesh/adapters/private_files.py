"""Folders and files that only their owner may read, whatever the umask."""

import os
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Final

FOLDER_MODE: Final = 0o700
FILE_MODE: Final = 0o600
_OTHERS: Final = 0o077


def make_folder(folder: Path) -> None:
    """Make a folder and its missing parents. An existing one stays as it is. Raises OSError."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    try:
        folder.mkdir(FOLDER_MODE)
    except FileExistsError:
        if not folder.is_dir():
            raise
        return  # another process was faster
    folder.chmod(FOLDER_MODE)


def make_file(path: Path) -> None:
    """Make an empty file, unless it exists. Raises OSError."""
    try:
        handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, FILE_MODE)
    except FileExistsError:
        return
    os.close(handle)
    path.chmod(FILE_MODE)


def close_off(paths: Iterable[Path]) -> list[str]:
    """Remove all rights of other users from these paths, if they exist and belong to this user.

    Returns those that were open, as `mesh.db (0644)`. Raises nothing: files of another user are left alone.
    """
    found = []
    for path in paths:
        try:
            before = path.stat()
            mode = stat.S_IMODE(before.st_mode)
            if mode & _OTHERS and before.st_uid == os.geteuid():
                path.chmod(mode & ~_OTHERS)
                found.append(f"{path.name} ({mode:04o})")
        except OSError:
            continue  # gone meanwhile, or on a file system without rights
    return found
