"""A file of --save: it appears, or replaces another, when it is complete."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO

from mesh.app.agent_replay import FOLDER_PREFIX
from mesh.core.errors import ConfigInvalid


@contextmanager
def saved_file(path: str | Path) -> Iterator[IO[bytes]]:
    """Open a file for writing in a temporary folder beside it, and give it its name at the end of the block.

    A block that raises leaves nothing; a process that is killed leaves the folder. What is no plain file, such as a
    pipe, is written at once. Raises ConfigInvalid if the file cannot be written.
    """
    target = Path(path).resolve()
    try:
        if target.exists() and not target.is_file():
            with target.open("wb") as file:
                yield file
            return
        with TemporaryDirectory(prefix=FOLDER_PREFIX, dir=target.parent) as folder:
            written = Path(folder) / target.name
            with written.open("wb") as file:
                yield file
            written.replace(target)
    except BrokenPipeError:  # standard output was closed
        raise
    except OSError as error:
        raise ConfigInvalid(f"the file cannot be written: {error.strerror}", where=f"--save {path}") from error
