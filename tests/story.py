"""The story of README's chapter "Debug a run": its commands, and the output that it shows and that there is."""

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from tests.cli.conftest import plain

ROOT = Path(__file__).parent.parent
CHAPTER = "Debug a run"
ELSE = "…"
"""A line in place of output that is not shown."""
MARK = "\x1e"
SLOW = "no answer yet: "
"""Begin of a line of `mesh publish --wait` on a machine that has much else to do."""
DEADLINE_S = 900


class Told(NamedTuple):
    """A command that the chapter types, and the lines that it shows below."""

    command: str
    shown: list[str]


def story() -> list[Told]:
    """Return the commands of the chapter."""
    text = (ROOT / "README.md").read_text("utf-8").split(f"\n## {CHAPTER}\n", 1)[1].split("\n## ", 1)[0]
    lines = "\n".join(re.findall(r"^```console\n(.*?)^```", text, re.MULTILINE | re.DOTALL)).split("\n")
    told: list[Told] = []
    for line in lines:
        if line.startswith("$ "):
            told.append(Told(line.removeprefix("$ "), []))
        elif line:
            told[-1].shown.append(line)
    return told


def play(commands: list[str], folder: Path, environ: Mapping[str, str]) -> list[str]:
    """Type the commands into one shell and return the output of each. Processes in the background keep their own."""
    script = "".join(f"{_kept_apart(command)}\nprintf '{MARK}'\n" for command in commands)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    home = {"HOME": str(folder), "XDG_DATA_HOME": str(folder / "data"), "LANG": "C.UTF-8", "PATH": path}
    done = subprocess.run(
        ["bash"],
        input=script,
        cwd=folder,
        env={**home, "PYTHONPATH": str(ROOT), **environ},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )
    outputs = done.stdout.split(MARK)
    assert len(outputs) == len(commands) + 1, done.stdout
    return outputs[:-1]


def _kept_apart(command: str) -> str:
    return f"{command[:-1]}> background.log 2>&1 &" if command.endswith("&") else command


def difference(told: Told, output: str) -> str:
    """Return what the chapter shows and the command did not print; "" if it is as shown."""
    there = [line for line in map(_comparable, output.split("\n")) if line and not line.startswith(SLOW)]
    at, anywhere = 0, False
    for line in told.shown:
        if line == ELSE:
            anywhere = True
            continue
        wanted = _comparable(line)
        places = range(at, len(there)) if anywhere else range(at, min(at + 1, len(there)))
        found = next((n for n in places if there[n] == wanted), None)
        if found is None:
            return f"$ {told.command}\nshown:   {wanted}\nprinted: {there[at:]}"
        at, anywhere = found + 1, False
    return "" if anywhere or at == len(there) else f"$ {told.command}\nprinted, and not shown: {there[at:]}"


def _comparable(line: str) -> str:
    """Return a line without widths of columns, places among parallel answers, and all that `plain` replaces."""
    line = re.sub(r"\b\d+/s\b", "RATE", plain(line))
    line = re.sub(r"^ *\d+  (requested|succeeded) ", r"N \1 ", line)
    return " ".join(line.split())
