"""The requests and their acknowledgements, stored on disk by the submitter: the checker trusts only these."""

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple


class Entry(NamedTuple):
    """One request. `phase` names the fault during which it was asked; `asked_s` is the wall clock."""

    run: str
    phase: str
    asked_s: float


class Ledger:
    """Append-only JSON Lines. `asked` before an append, `acked` after its acknowledgement, each followed by fsync."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = path.open("ab")

    def asked(self, entries: Iterable[Entry]) -> None:
        """Note that a request is about to be sent: an outcome may come from now on."""
        self._write({"asked": entry.run, "phase": entry.phase, "at": entry.asked_s} for entry in entries)

    def acked(self, runs: Iterable[str]) -> None:
        """The log acknowledged: an outcome must come."""
        self._write({"acked": run} for run in runs)

    def close(self) -> None:
        """No more lines."""
        self._file.close()

    def _write(self, lines: Iterable[dict[str, object]]) -> None:
        self._file.write(b"".join(json.dumps(line).encode() + b"\n" for line in lines))
        self._file.flush()
        os.fsync(self._file.fileno())


def read(path: Path) -> tuple[dict[str, Entry], set[str]]:
    """Return the requests by run id, and which of them were acknowledged."""
    asked: dict[str, Entry] = {}
    acked: set[str] = set()
    for line in path.read_bytes().splitlines():
        found = json.loads(line)
        if "acked" in found:
            acked.add(found["acked"])
        else:
            asked.setdefault(found["asked"], Entry(found["asked"], found["phase"], found["at"]))
    return asked, acked
