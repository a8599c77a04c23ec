"""`mesh demo`: runs the example agents on sample events; it needs nothing but the package."""

import asyncio
import shlex
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, NamedTuple

import orjson
import typer

from mesh.adapters.private_files import FOLDER_MODE, close_off, make_folder
from mesh.cli.framework.logs import Reporter, hide_failed_attempts
from mesh.cli.framework.options import command, verb
from mesh.cli.framework.output import Output
from mesh.cli.framework.session import Session
from mesh.cli.framework.signals import Stop, Stopped
from mesh.cli.framework.text import counted, percentile, took
from mesh.cli.views import run_view
from mesh.core.errors import ConfigInvalid, WaitTimeout
from mesh.core.history.timeline import History
from mesh.core.topology.model import Topology
from mesh.examples import FOLDER
from mesh.operations.runs import RunChange, Runs

if TYPE_CHECKING:
    from mesh.client import Mesh
    from mesh.core.protocol.event import Event
    from mesh.settings import Settings

EXTRA_WAIT_S: Final = 30.0
"""Runs may be reported as ended this long after their deadline."""
PACE_S: Final = 0.01
PACE_TERMINAL_S: Final = 0.12
app = verb()


@command(app, "demo", example="mesh demo --once")
async def demo(
    session: Session,
    *,
    once: Annotated[bool, typer.Option("--once", help="end when all runs have ended, also on a terminal")] = False,
) -> int:
    """Show the example agents at work on sample events.

    They run on a new embedded log, and every run is shown when it ends. The data is kept. On a terminal the mesh stays
    up until Ctrl-C, so that you can publish from another terminal.
    """
    began = time.monotonic()
    stays = session.output.interactive and not once
    session.override_topology(str(_topology_file(session, FOLDER)), chaos=True)
    samples = list(_samples(session.topology, FOLDER / "agents" / "samples"))
    if not samples:
        raise ConfigInvalid(
            "no sample event fits this mesh",
            where=session.topology.path,
            expected="topics called orders.… or github.webhooks…",
            remedy="`mesh up` runs yours, `mesh publish` feeds it",
        )
    hide_failed_attempts(session.output)
    with Stop(Reporter(session.output).info) as stop:
        async with _mesh(session) as (folder, mesh):
            show = Show(session, mesh, stop, folder)
            await show.run(samples, began, stays=stays)
        return stop.code


class Sample(NamedTuple):
    """A sample request of the package."""

    type: str
    document: bytes
    subject: str


class Show:
    """Publishes the samples, prints their runs, and a summary."""

    def __init__(self, session: Session, mesh: "Mesh", stop: Stop, folder: Path) -> None:
        self._screen: Output = session.output
        self._mesh = mesh
        self._stop = stop
        self._folder = folder
        self._ended: list[History] = []
        self._first_s = 0.0

    async def run(self, samples: list[Sample], began: float, *, stays: bool) -> None:
        """Run until all runs have ended; with `stays`, until Ctrl-C."""
        runs = Runs(self._mesh.log, self._mesh.topology)
        ends = await runs.ends()
        self._banner(began)
        events = [self._mesh.request(s.type, s.document, subject=s.subject) for s in samples]
        async with aclosing(runs.watch(ends)) as changes:
            deadline_s = self._mesh.topology.limits.deadline_ms / 1_000 + EXTRA_WAIT_S
            feeding = asyncio.ensure_future(self._feed(events))
            with self._screen.status("working"), suppress(Stopped):
                await self._wait_for_ends(changes, events, began, deadline_s)
            feeding.cancel()
            await asyncio.wait((feeding,))
            self._summary(events)
            if stays and not self._stop.event.is_set():
                self._screen.print()
                self._screen.print("Still running: publish from another terminal. ", ("Ctrl-C stops it.", "dim"))
                with suppress(Stopped):
                    await self._stop.unless(self._print_runs(changes))

    async def _feed(self, events: "list[Event]") -> None:
        """Publish one event after another, at a pace that can be followed on a terminal."""
        for event in events:
            await self._mesh.send([event])
            await asyncio.sleep(PACE_TERMINAL_S if self._screen.interactive else PACE_S)

    async def _wait_for_ends(
        self, changes: AsyncIterator[RunChange], events: "list[Event]", began: float, deadline_s: float
    ) -> None:
        left = {event.run_id for event in events}
        try:
            async with asyncio.timeout(deadline_s):
                while left:
                    change = await self._stop.unless(anext(changes))
                    if change.ended:
                        left.discard(change.history.run_id)
                        self._first_s = self._first_s or time.monotonic() - began
                        self._print_run(change.history)
                    self._screen.update(f"{len(self._ended)} of {len(events)} runs have ended")
        except TimeoutError as error:
            raise WaitTimeout(f"{len(left)} runs have not ended", where=str(self._folder)) from error

    async def _print_runs(self, changes: AsyncIterator[RunChange]) -> None:
        """Print runs of other publishers."""
        async for change in changes:
            if change.ended:
                self._print_run(change.history)

    def _banner(self, began: float) -> None:
        topology = self._mesh.topology
        agents = counted(len(topology.agents), "agent")
        spent = took((time.monotonic() - began) * 1_000)
        self._screen.note(("mesh demo", "bold"), f"  {topology.name}: {agents} on an embedded log", f"  up in {spent}")
        self._screen.note(("  data  ", "dim"), str(self._folder))
        self._screen.note()

    def _print_run(self, history: History) -> None:
        self._ended.append(history)
        self._screen.emit({"event": "ended", **run_view.history_json(history)})
        run_view.headline(self._screen, history)
        run_view.tree(self._screen, history)
        run_view.reasons(self._screen, history)
        self._screen.print()

    def _summary(self, events: "list[Event]") -> None:
        endings = Counter(history.ending for history in self._ended)
        times = sorted(float((h.ended_ms or 0) - h.opened_ms) for h in self._ended)
        p50, p99 = percentile(times, 0.5), percentile(times, 0.99)
        tasks = sum(len(history.tasks) for history in self._ended)
        output = self._screen
        output.emit(
            {
                "event": "summary",
                "runs": len(self._ended),
                "events": len(events),
                "tasks": tasks,
                "endings": dict(endings),
                "took_ms": {"p50": p50, "p99": p99},
                "first_outcome_s": round(self._first_s, 3),
                "data": str(self._folder),
            }
        )
        shown = ", ".join(f"{number} {ending}" for ending, number in endings.most_common())
        output.print(("summary", "bold"))
        output.print(("  runs   ", "dim"), f"{len(self._ended)} of {counted(len(events), 'event')}: {shown}")
        output.print(("  tasks  ", "dim"), f"{tasks}")
        output.print(
            ("  time   ", "dim"), f"p50 {took(p50)}, p99 {took(p99)}; first outcome after {self._first_s:.2f} s"
        )
        output.print(("  data   ", "dim"), str(self._folder))
        output.print()
        if self._ended:
            self._next(self._ended[-1])

    def _next(self, last: History) -> None:
        output = self._screen
        output.print(("look around", "bold"))
        output.print(f"  cd {shlex.quote(str(self._folder))}", folds=False)
        for typed, meaning in (
            ("mesh run list", "all runs (mesh.toml in that folder names the log)"),
            (f"mesh run show {run_view.id_of(last.run_id)}", "one run: tree, results, timeline"),
            ("mesh top", "the agents, live: what waits, what fails"),
            ("mesh board keys", "values that the agents wrote"),
            ("mesh up", "the agents again, for your own events"),
        ):
            output.print(f"  {typed:<28}", (f"  {meaning}", "dim"))


@asynccontextmanager
async def _mesh(session: Session) -> "AsyncIterator[tuple[Path, Mesh]]":
    """Run a mesh in this process, on a new file below the user's data folder."""
    from mesh.app.process import Process, running
    from mesh.app.wiring import load_agents, open_board, open_log
    from mesh.client import Mesh
    from mesh.settings import data_folder

    agents = load_agents(session.topology)
    folder = _new_folder(data_folder())
    settings: Settings = session.settings.model_copy(update={"log": f"sqlite:{folder / 'mesh.db'}", "board": ""})
    _write_settings(folder, session.topology.path)
    async with AsyncExitStack() as exits:
        log = open_log(settings)
        board = open_board(settings, session.topology.prefix, beside=log)
        await log.start()
        exits.push_async_callback(log.close)
        await board.start()
        exits.push_async_callback(board.close)
        process = Process(log, session.topology, settings, agents=agents, board=board)
        await exits.enter_async_context(running(process))
        mesh = Mesh(log, session.topology)
        exits.push_async_callback(mesh.close)
        yield folder, mesh


def _new_folder(parent: Path) -> Path:
    """Make a new folder, named by the time."""
    name = time.strftime("demo-%Y%m%d-%H%M%S")
    for number in range(1_000):
        folder = parent / (name if not number else f"{name}-{number}")
        try:
            make_folder(parent)
            close_off([parent])
            folder.mkdir(FOLDER_MODE)
            folder.chmod(FOLDER_MODE)
        except FileExistsError:
            continue
        except OSError as error:
            raise ConfigInvalid(
                f"no folder can be made for the data: {error.strerror}",
                where=str(parent),
                remedy="Set XDG_DATA_HOME to a folder that can be written",
            ) from error
        return folder
    raise ConfigInvalid("no name is left for the data", where=str(parent))


def _write_settings(folder: Path, topology: str) -> None:
    """Write mesh.toml, so that commands in that folder use this mesh."""
    path = str(Path(topology).resolve()).replace("\\", "\\\\").replace('"', '\\"')
    text = f'# made by `mesh demo`; commands typed in this folder use it\nlog = "sqlite:mesh.db"\ntopology = "{path}"\n'
    text += "chaos = true\n"
    (folder / "mesh.toml").write_text(text, encoding="utf-8")


def _topology_file(session: Session, examples: Path) -> Path:
    """The topology that was named, else that of the examples: in the installed package, or in the source tree."""
    if session.options.topology is not None:
        return Path(session.options.topology)
    found = examples / "topics.yaml"
    if found.is_file():
        return found
    raise ConfigInvalid("the example's topics.yaml is missing", where=str(examples), remedy="Install the package again")


def _samples(topology: Topology, folder: Path) -> Iterator[Sample]:
    """`orders.jsonl` holds what comes in by the topic `orders.…`, `github-webhooks.jsonl` by `github.webhooks`."""
    for file in sorted(folder.glob("*.jsonl")):
        stem = file.stem.replace("-", ".")
        rule = next((r for r in topology.topics.values() if r.ingress and f"{r.name}.".startswith(f"{stem}.")), None)
        if rule is not None and rule.ingress is not None:
            for line in file.read_bytes().splitlines():
                if line.strip():
                    yield Sample(rule.ingress, line, _subject(line))


def _subject(line: bytes) -> str:
    """The name of a sample; those of webhooks have one."""
    value = orjson.loads(line)
    return str(value.get("name", "")) if isinstance(value, dict) else ""
