"""A peer for the tests of the kill test: reads numbered lines, answers, and keeps its place in a file.

    losing_peer.py FOLDER before|after WORK_MS

`after`: its place is written down after the answer, so nothing is lost. `before`: before the work, so that what was in
work when it was killed is lost. `twice`: after the answers of ten, so that a kill makes answers come again.
"""

import os
import sys
import time
from pathlib import Path


def place(folder: Path) -> int:
    """Return the committed offset."""
    path = folder / "place"
    return int(path.read_text()) if path.exists() else 0


def promise(folder: Path, count: int) -> None:
    """Replace the file at once: a kill leaves the old one or the new one."""
    fresh = folder / "place.new"
    fresh.write_text(str(count))
    os.replace(fresh, folder / "place")


def append(path: Path, text: bytes) -> None:
    """One write, whole or not at all."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.write(descriptor, text)
    os.close(descriptor)


def main(folder: Path, manner: str, work_ms: float) -> None:
    """Work to the end, then wait to be killed."""
    ids = (folder / "asks").read_text().split()
    for n in range(place(folder), len(ids)):
        if manner == "before":
            promise(folder, n + 1)
        append(folder / "begun", b".")
        time.sleep(work_ms / 1000)
        append(folder / "answers", f"{ids[n]}\n".encode())
        if manner == "after" or (manner == "twice" and n % 10 == 9):
            promise(folder, n + 1)
    time.sleep(600)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], float(sys.argv[3]))
