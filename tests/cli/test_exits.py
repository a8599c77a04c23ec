"""Agents that end their process, or try to: `mesh up` goes on, or ends with a code that is not 0."""

import json
import signal
import subprocess
from pathlib import Path

import pytest

from tests.cli.conftest import COMMAND, Cli, until

TOPOLOGY = """
mesh: {name: exits, inbox: {partitions: 2}}
topics: {asks: {ingress: a.in, partitions: 2}, answers: {egress: a.out, partitions: 2}}
agents:
  one: {run: "ag:one", on: a.in, emits: a.out, timeout: 20s, retry: {attempts: 1}}
"""
AGENT = """
import asyncio, os, sys, threading
from mesh import Context, Payload, agent
class In(Payload, type="a.in"):
    act: str = ""
class Out(Payload, type="a.out"):
    n: int
class Worse(Exception):
    def __str__(self): raise SystemExit(0)
async def later(error):
    await asyncio.sleep(0)
    raise error
@agent
async def one(event: In, ctx: Context) -> Out:
    loop = asyncio.get_running_loop()
    match event.act:
        case "task": loop.create_task(later(SystemExit(0)))
        case "interrupt": loop.create_task(later(KeyboardInterrupt()))
        case "callback": loop.call_soon(sys.exit, 0)
        case "thread": threading.Thread(target=sys.exit, args=(0,)).start()
        case "stop": loop.stop()
        case "text": raise Worse
        case "exit": sys.exit(0)
        case "fork":
            if os.fork() == 0:
                return Out(n=-1)
            os.wait()
        case "loop": return Out(n=await asyncio.to_thread(lambda: asyncio.run(ctx.board.add("n")).value))
    return Out(n=7)
"""


@pytest.fixture
def here(project: Cli, tmp_path: Path) -> Cli:
    folder = tmp_path / "here"
    folder.mkdir()
    (folder / "topics.yaml").write_text(TOPOLOGY)
    (folder / "ag.py").write_text(AGENT)
    return project.at(folder)


def test_what_agents_do_to_their_process_does_not_end_it(here: Cli) -> None:
    acts = {"task": 7, "interrupt": 7, "callback": 7, "thread": 7, "stop": 7, "text": None, "exit": None}
    acts |= {"fork": 7, "loop": 1, "": 7}
    with here.up() as running:
        for act, answer in acts.items():
            run = here("publish", "a.in", f'{{"act": "{act}"}}', "--json").rows[0]["run"]
            until(lambda run=run: here("run", "show", run, "--json").rows[0]["state"] in ("completed", "failed"))  # type: ignore[misc]
            (shown,) = here("run", "show", run, "--json").rows
            assert [result["data"] for result in shown["results"]] == ([] if answer is None else [{"n": answer}]), act
        assert running.process.poll() is None
        running.signal(signal.SIGTERM)
        done = running.end()
    assert done.code == 143
    for said in ("SystemExit: 0", "KeyboardInterrupt"):
        assert f"{said} was raised in a background task or callback, at " in done.err
    assert "stopped the event loop" in done.err


def test_too_few_open_files_are_reported_at_the_start_and_are_no_bug(project: Cli) -> None:
    """At each limit: it starts and says that it may be too low, or it names the limit and ends with code 4."""
    for limit in (11, 14, 64):
        line = f"ulimit -n {limit}; exec {' '.join(COMMAND)} up"
        with subprocess.Popen(
            ["sh", "-c", line], cwd=project.folder, env=project.environ, stderr=subprocess.PIPE, text=True
        ) as process:
            assert process.stderr is not None
            lines = [json.loads(process.stderr.readline())]
            ended = ""
            for text in process.stderr:
                if not text.startswith("{"):
                    ended = text
                elif '"ready"' in text or "ready in" in text:
                    process.terminate()
        code = process.wait(30)
        assert lines[0]["event"].startswith(f"this process may open {limit} files, and ")
        assert lines[0]["files_max"] == limit
        assert "bug" not in ended
        assert (code, "ulimit -n" in ended) == ((143, False) if limit == 64 else (4, True)), (limit, ended)
