"""A log that a process may only read: every command that reads, and the proof that nothing of the log has changed."""

import ctypes
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

_CAPBSET_DROP: Final = 24
_DAC_OVERRIDE: Final = 1
_DAC_READ_SEARCH: Final = 2


def bound_by_modes() -> None:
    """Let the modes of files bind the program that this process starts next, also if it is root's.

    Root loses the capabilities to pass over modes; see capabilities(7). For `preexec_fn`.
    """
    if os.getuid() == 0:
        library = ctypes.CDLL(None, use_errno=True)
        for capability in (_DAC_OVERRIDE, _DAC_READ_SEARCH):
            if library.prctl(_CAPBSET_DROP, capability, 0, 0, 0) != 0:
                raise OSError(ctypes.get_errno(), "prctl")


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Take the right to write from a folder and all below it."""
    paths = [folder, *folder.rglob("*")]
    before = {path: path.stat().st_mode for path in paths}
    for path in reversed(paths):
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        yield
    finally:
        for path in paths:
            path.chmod(before[path])


class Stamp(NamedTuple):
    """A file or folder as it was at one time."""

    value: bytes
    changed_ns: int


def stamps(folder: Path) -> dict[str, Stamp]:
    """Return bytes and time of change of the folder and of all below it."""
    return {
        str(path): Stamp(path.read_bytes() if path.is_file() else b"", path.stat().st_mtime_ns)
        for path in [folder, *sorted(folder.rglob("*"))]
    }


def reading_commands(run: str, agent: str, change: str, folder: Path) -> Sequence[Sequence[str]]:
    """Return one command for each way to read a log. `run` has a task of `agent`; `change`: of `--set`.

    `folder`: for files that the commands write; it has topics.yaml.
    """
    once = ["replay", run]
    return [
        ["topics", "read", "inbox", "--run", run],
        ["topics", "read", "inbox", "outcomes", "--since", "1h", "--where", "depth >= 0"],
        ["lag"],
        ["doctor", "--within", "30s"],
        ["top"],
        ["cost"],
        ["cost", "--by", "run", "--since", "1h"],
        ["windows"],
        ["run", "list"],
        ["run", "list", "--agent", agent, "--sort", "took", "--where", "tasks > 0"],
        ["run", "show", run],
        ["run", "export", run],
        ["run", "export", "--since", "1h"],
        once,
        [*once, "--step"],
        [*once, "--break", f'agent == "{agent}"'],
        [*once, "--check"],
        ["replay", "--check"],
        ["replay", "--check", "--since", "1h"],
        ["verify"],
        [*once, "--limit", "depth_max=1"],
        ["replay", "--since", "1h", "--limit", "depth_max=1"],
        [*once, "--with", str(folder / "topics.yaml")],
        ["replay", "--with", str(folder / "topics.yaml")],
        [*once, "--run"],
        [*once, "--run", "--set", change, "--save", str(folder / "saved.jsonl")],
        [*once, "--run", "--from", agent, "--repeat", "2"],
        [*once, "--resend"],
        ["replay", "--resend", "--since", "1h"],
        ["replay", "--agent", agent],
        ["replay", "--agent", agent, "--since", "1h", "--jobs", "2", "--save", str(folder / "differing.jsonl")],
    ]
