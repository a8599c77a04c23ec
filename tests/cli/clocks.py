"""Processes with wall clocks that differ from the machine's; the difference may change while they run.

A `sitecustomize` that only these processes find shifts Python's `time.time` and `time.time_ns`. Uptime and monotonic
time are not shifted, as after a change of the date.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.cli.conftest import ROOT, Cli

SITE = """
import os, time
_file, _time, _time_ns = os.environ["CLOCK_FILE"], time.time, time.time_ns
def _ahead_s():
    with open(_file) as file:
        return float(file.read() or 0)
time.time = lambda: _time() + _ahead_s()
time.time_ns = lambda: _time_ns() + int(_ahead_s() * 1e9)
"""
TOPICS = """
mesh: {name: clocks%(mark)s, prefix: clocks%(mark)s, inbox: {partitions: 2}, limits: {deadline: 3s}}
topics:
  asks%(mark)s: {ingress: asked, id: id, partitions: 2}
  answers%(mark)s: {egress: answered, partitions: 2}
agents:
  ok: {run: "ticking:ok", on: asked, when: mode == "ok", emits: answered, timeout: 2s}
  flaky:
    run: "ticking:flaky"
    on: asked
    when: mode == "flaky"
    emits: answered
    timeout: 2s
    retry: {attempts: 3, first: 200ms, factor: 1, jitter: 0}
  later: {run: "ticking:later", on: asked, when: mode == "later", emits: answered, timeout: 2s}
  hang: {run: "ticking:hang", on: asked, when: mode == "hang", emits: answered, timeout: 3s}
"""
AGENTS = """
import asyncio
from mesh import Context, Payload, RetryLater, agent

class Asked(Payload, type="asked"):
    id: str
    mode: str

class Answered(Payload, type="answered"):
    attempt: int

begun = {}

@agent
async def ok(asked: Asked, ctx: Context) -> Answered:
    return Answered(attempt=ctx.attempt)

@agent
async def flaky(asked: Asked, ctx: Context) -> Answered:
    if ctx.attempt < 3:
        raise RuntimeError("not yet")
    return Answered(attempt=ctx.attempt)

@agent
async def later(asked: Asked) -> Answered | RetryLater:
    begun[asked.id] = begun.get(asked.id, 0) + 1
    return RetryLater(0.2) if begun[asked.id] < 3 else Answered(attempt=begun[asked.id])

@agent
async def hang(asked: Asked) -> Answered:
    await asyncio.sleep(60)
    return Answered(attempt=0)
"""
CLIENT = """
import asyncio, json, sys, time
from mesh import Mesh

async def one(mesh, mode, mark, **options):
    begun = time.monotonic()
    asked = {"id": f"{mode.replace('+', '-soon')}-{mark}", "mode": mode.rstrip("+")}
    run = await mesh.publish("asked", asked, **options)
    outcome = await run.outcome(timeout_s=20)
    attempts = [result.data["attempt"] for result in outcome.results]
    return mode, {"ending": outcome.ending, "attempts": attempts, "took_s": time.monotonic() - begun,
        "refused": [refusal["code"] for refusal in outcome.refusals]}

async def main():
    async with Mesh.connect() as mesh:
        asked = [one(mesh, mode, sys.argv[1]) for mode in ("ok", "flaky", "later", "hang")]
        found = await asyncio.gather(*asked, one(mesh, "ok+", sys.argv[1] + "p", deadline_s=2))
        print(json.dumps(dict(found)))

asyncio.run(main())
"""


class Clocks:
    """A mesh of agents that wait, whose processes are given clocks by name."""

    def __init__(self, folder: Path, home: Path, mark: str = "") -> None:
        folder.mkdir()
        self.cli = Cli(None, folder, home)
        self._home = home
        (folder / "topics.yaml").write_text(TOPICS % {"mark": mark})
        (folder / "ticking.py").write_text(AGENTS)
        (folder / "client.py").write_text(CLIENT)
        (home / "site").mkdir()
        (home / "site" / "sitecustomize.py").write_text(SITE)

    def of(self, name: str, ahead_s: float) -> dict[str, str]:
        """The environment of a process with this clock; called again it sets the clock of one that runs."""
        file = self._home / f"{name}.clock"
        new = file.with_suffix(".new")
        new.write_text(str(ahead_s))
        new.rename(file)
        return {"CLOCK_FILE": str(file), "PYTHONPATH": f"{self._home / 'site'}:{ROOT}"}

    def ask(self, mark: str, ahead_s: float = 0) -> dict[str, Any]:
        """Return the outcome of one request to each agent, from a client with this clock."""
        done = subprocess.run(
            [sys.executable, str(self.cli.folder / "client.py"), mark],
            cwd=self.cli.folder,
            env={**self.cli.environ, **self.of(f"client-{mark}", ahead_s)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found


def check(found: dict[str, Any]) -> None:
    """All went as it does with right clocks."""
    assert (found["ok"]["ending"], found["ok"]["attempts"]) == ("completed", [1]), found
    assert (found["ok+"]["ending"], found["ok+"]["attempts"]) == ("completed", [1]), found
    assert (found["flaky"]["ending"], found["flaky"]["attempts"]) == ("completed", [3]), found
    assert (found["later"]["ending"], found["later"]["attempts"]) == ("completed", [3]), found
    assert (found["hang"]["ending"], found["hang"]["refused"]) == ("stopped", ["deadline"]), found
    assert 2.9 <= found["hang"]["took_s"] < 10, found
