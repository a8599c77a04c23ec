"""The field of a fault test: servers, a mesh in processes of its own, upstream's load; phases and the verdict.

async with Field(folder, CI) as field:
    for fault in faults: await field.run(fault)
    report = await field.verdict()
"""

import asyncio
import json
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, NamedTuple, Self

from bench.mesh_processes import ROOT, Child, private_topology
from mesh.adapters.ports import TopicSpec
from mesh.app.wiring import load_topology, open_log, topic_specs
from mesh.settings import Settings
from tests.live.chaos.checker import effects_of, lags
from tests.live.chaos.fault import ALWAYS, Fault, Figures, Phase, Scale
from tests.live.chaos.ledger import Ledger
from tests.live.chaos.load import Upstream
from tests.live.chaos.proxy import Proxy
from tests.live.chaos.supervisor import Footprint, Keeper, leaks
from tests.live.redis_server import Server
from tests.live.servers import KafkaServer

TOPOLOGY = Path(__file__).with_name("topology.yaml")
BEHIND_SHOWN_MAX = 8
QUIET_S = 120.0
"""Seconds that the last runs of a phase may take to end."""
HEAVY_BYTES_MAX = 16_384
TREE, ODD = ("split", "branch", "leaf", "hear", "answer"), ("odd", "even", "cost", "heavy", "slow")
COUNTED = (
    *("asked", "acked", "tasks", "lost", "ended_twice", "unexplained"),
    *("tasks_repeated", "answers_repeated", "outcomes_repeated"),
)
"""Figures of the checker that are summed over the runs of a fault."""
TROUBLE = ("odd",)
"""Names of keepers whose process faults may end from within."""


REST_WAIT_S = 60.0
"""Seconds that a mesh may take to come to rest after its last outcome."""


class Row(NamedTuple):
    """One fault, judged."""

    id: str
    title: str
    figures: Figures
    failed: tuple[str, ...]
    """Criteria that did not hold."""

    def as_json(self) -> dict[str, Any]:
        """Return its stored form."""
        figures = self.figures
        return {
            "fault": self.id,
            "title": self.title,
            "kills": figures.kills,
            **{name: figures.total(name) for name in COUNTED},
            "calls_repeated": figures.total("calls_repeated"),
            "worst_s": round(figures.late_s(1.0), 2),
            "p99_s": round(figures.late_s(0.99), 2),
            "p50_s": round(figures.late_s(0.5), 2),
            "facts": figures.facts,
            "failed": list(self.failed),
        }


class Field:
    """See the module. `brokers` 0: the embedded log, one file for all processes, and no Redis."""

    def __init__(self, folder: Path, scale: Scale, *, brokers: int = 1, seed: int = 1) -> None:
        self.folder, self.scale, self.brokers, self.seed = folder, scale, brokers, seed
        self.keepers: dict[str, Keeper] = {}
        self.phases: list[tuple[Fault, Phase]] = []
        self.started_s = time.time()
        self._footprints: dict[Child, list[Footprint]] = {}
        self._exits = AsyncExitStack()
        self._mark = f"-{time.time_ns() % 10**8}"

    async def __aenter__(self) -> Self:
        try:
            await self._begin()
        except BaseException:
            await self._exits.aclose()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._exits.aclose()

    # ------------------------------------------------------------------------------------------------------- servers

    async def _begin(self) -> None:
        self.folder.mkdir(exist_ok=True)
        path = private_topology(TOPOLOGY, self.folder, self._mark)
        self.topology_path, self.topology = str(path), load_topology(str(path))
        await (self._begin_servers() if self.brokers else self._begin_file())
        self.log = open_log(Settings(log=self.log_url, topology=self.topology_path), client="chaos")
        await self.log.start()
        self._exits.push_async_callback(self.log.close)
        small = TopicSpec(self.topology.tasks("heavy"), self.topology.inbox_partitions)
        config = {"message.timestamp.type": "LogAppendTime", "max.message.bytes": str(HEAVY_BYTES_MAX)}
        await self.log.create_topics([small._replace(config=config)])
        await self.log.create_topics(topic_specs(self.topology))
        ledger = Ledger(self.folder / "ledger.jsonl")
        self._exits.callback(ledger.close)
        kinds = {rule.ingress: rule.name for rule in self.topology.topics.values() if rule.ingress}
        self.ingress = kinds
        self.upstream = Upstream(self.log, ledger, self.topology.outcomes, kinds)
        watching = asyncio.get_running_loop().create_task(self.upstream.watch(), name="watch")
        self._exits.push_async_callback(_cancelled, watching)
        await self._begin_mesh()

    async def _begin_servers(self) -> None:
        """Start a broker with two listeners: one is reached directly, the other only through the proxy."""
        listeners = "PLAINTEXT://127.0.0.1:{port},PROXIED://127.0.0.1:{sasl},CONTROLLER://127.0.0.1:{controller}"
        settings = {
            "listeners": listeners,
            "advertised.listeners": "PLAINTEXT://127.0.0.1:{port},PROXIED://127.0.0.1:{ssl}",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,PROXIED:PLAINTEXT,CONTROLLER:PLAINTEXT",
        }
        options = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
        if self.brokers > 1:
            options = []
        self.broker = KafkaServer(self.folder / "kafka", *options, brokers=self.brokers)
        await asyncio.to_thread(self.broker.start)
        self._exits.push_async_callback(asyncio.to_thread, self.broker.stop)
        self.log_url = f"kafka://{self.broker.bootstrap}"
        self.proxy = Proxy(self.broker.port + 6, port=self.broker.port + 7, seed=self.seed)
        if self.brokers == 1:
            await self._exits.enter_async_context(self.proxy)
        self.proxied_url = f"kafka://127.0.0.1:{self.proxy.port}"
        self.redis = Server(self.folder / "redis", "--appendonly", "yes")
        await self.redis.start()
        self._exits.push_async_callback(self.redis.close)
        self.board_url = self.redis.url

    async def _begin_file(self) -> None:
        self.log_url = f"sqlite:{self.folder}/mesh.db"
        self.board_url = f"sqlite:{self.folder}/board.db"

    async def _begin_mesh(self) -> None:
        environ = {
            "MESH_LOG": self.log_url,
            "MESH_BOARD": self.board_url,
            "MESH_TOPOLOGY": self.topology_path,
            "MESH_SESSION_TIMEOUT_MS": str(self.scale.session_ms),
            "CHAOS_EFFECTS": str(self.folder / "effects"),
            "CHAOS_TAIL_MS": str(self.scale.tail_ms),
            "CHAOS_BLOCK_S": str(2 * self.scale.session_ms / 1000),
        }
        tree = tuple(word for name in TREE for word in ("--agent", name))
        odd = tuple(word for name in ODD for word in ("--agent", name))
        arguments: dict[str, tuple[str, ...]] = {
            "intake": ("intake",),
            "orchestrator-1": ("orchestrator",),
            "orchestrator-2": ("orchestrator",),
            "worker-1": ("worker", *tree),
            "worker-2": ("worker", *tree),
            "odd": ("worker", *odd),
        }
        for name, words in arguments.items():
            keeper = Keeper(name, words, environ, restart_s_max=self.scale.restart_s_max, seed=self.seed)
            self.keepers[name] = keeper
            keeper.begin()
        self._exits.push_async_callback(self._end_mesh)
        await self.all_ready()

    async def _end_mesh(self) -> None:
        await asyncio.gather(*(keeper.end() for keeper in self.keepers.values()))

    async def all_ready(self) -> None:
        """Every process of the mesh says that it is ready."""
        await asyncio.gather(*(keeper.ready() for keeper in self.keepers.values()))

    def some(self, kind: str) -> list[Keeper]:
        """The keepers of orchestrators, workers, …"""
        return [keeper for name, keeper in self.keepers.items() if name.startswith(kind)]

    def extra(self, keeper: Keeper) -> Keeper:
        """One more process like that one, already begun; end it before the fault is over."""
        more = Keeper(
            f"{keeper.name}-extra",
            keeper.arguments,
            keeper.environ,
            restart_s_max=self.scale.restart_s_max,
            seed=self.seed,
        )
        more.begin()
        return more

    async def noted(self, note: str) -> None:
        """Wait until an agent has left that note: it is at work."""
        path = self.folder / "effects"
        async with asyncio.timeout(60):
            while not any(effect.note == note for effect in effects_of(path)):  # noqa: ASYNC110
                await asyncio.sleep(0.02)

    # -------------------------------------------------------------------------------------------------------- phases

    async def run(self, *faults: Fault) -> None:
        """Let faults act, at the same time if there are several; heal; wait until all that was asked has ended."""
        await asyncio.gather(*(self._act(fault) for fault in faults))

    async def _act(self, fault: Fault) -> None:
        phase = Phase(fault.id)
        self.phases.append((fault, phase))
        enough = asyncio.Event()
        began_s = time.monotonic()
        async with asyncio.TaskGroup() as group:
            if fault.load:
                least = self.scale.trees_min
                load = self.upstream.steadily(fault.id, rate=self.scale.rate, enough=enough, count_min=least)
                group.create_task(load)
            try:
                await fault.act(self, phase)
                await self.heal()
            except Exception as error:
                said = [
                    f"{k.name}: {[e.code for e in k.exits]} {''.join(list(k.child.lines)[-4:])}"
                    for k in self.keepers.values()
                ]
                error.add_note("\n".join([f"while {fault.id} acted: {phase}", *said]))
                raise
            finally:
                enough.set()
        healed_s = time.monotonic()
        left = await self.upstream.all_ended(self.upstream.of(fault.id), QUIET_S)
        phase.facts["quiet_after_s"] = round(time.monotonic() - healed_s, 1)
        phase.facts["acted_s"] = round(healed_s - began_s, 1)
        self._measure()
        if left:
            phase.facts["never_ended"] = len(left)
            phase.facts["behind"] = (await lags(self.log, self.topology))[:BEHIND_SHOWN_MAX]

    def _measure(self) -> None:
        """Measure the memory of the idle processes."""
        for keeper in self.keepers.values():
            if keeper.is_ready:
                self._footprints.setdefault(keeper.child, []).append(keeper.footprint)

    async def heal(self) -> None:
        """Everything that was stopped or bent goes on as it should."""
        if self.brokers:
            self.proxy.heal()
            for node in range(1, self.brokers + 1):
                self.broker.signal(signal.SIGCONT, node)
        for keeper in self.keepers.values():
            keeper.send(signal.SIGCONT)
            keeper.change()
        await self.all_ready()

    # ------------------------------------------------------------------------------------------------------- verdict

    async def verdict(self) -> tuple[list[Row], list[str]]:
        """Drain the mesh, let the checker judge. Rows by fault, and what is wrong with all of it."""
        # Outcomes may all be there while copies of records are still on their way through the mesh.
        until_s = time.monotonic() + REST_WAIT_S
        while await lags(self.log, self.topology) and time.monotonic() < until_s:  # noqa: ASYNC110  # no event tells
            await asyncio.sleep(0.2)
        await self._end_mesh()
        checked = await self._checked()
        wrong: list[str] = checked["wrong"]
        wrong += [text for child, found in self._footprints.items() for text in leaks(child.arguments, found)]
        for keeper in self.keepers.values():
            if keeper.exits[-1].code != 128 + signal.SIGTERM:
                wrong.append(f"{keeper.name} did not drain: status {keeper.exits[-1].code}")
            if keeper.name not in TROUBLE:
                wrong += [f"{keeper.name} ended by itself: {exit.code} {exit.last_lines}" for exit in keeper.surprises]
        return [self._row(fault, phase, checked["phases"]) for fault, phase in self.phases], wrong

    def _row(self, fault: Fault, phase: Phase, judged: dict[str, dict[str, Any]]) -> Row:
        mine = {name: figures for name, figures in judged.items() if name.partition("!")[0] == fault.id}
        figures = Figures(phase, self.scale, self.upstream.latencies(fault.id), mine)
        failed = [criterion.text for criterion in (*ALWAYS, *fault.criteria) if not criterion.holds(figures)]
        return Row(fault.id, fault.title, figures, tuple(failed))

    async def _checked(self) -> dict[str, Any]:
        words = ["--log", self.log_url, "--topology", self.topology_path]
        words += ["--ledger", str(self.folder / "ledger.jsonl"), "--effects", str(self.folder / "effects")]
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.live.chaos.checker", *words), cwd=ROOT, stdout=asyncio.subprocess.PIPE
        )
        said, _ = await process.communicate()
        assert process.returncode == 0, f"the checker ended with status {process.returncode}"
        found: dict[str, Any] = json.loads(said)
        return found


async def _cancelled(task: "asyncio.Task[None]") -> None:
    task.cancel()
    await asyncio.wait([task])
    if not task.cancelled():
        await task  # raises why it ended before


def complaints(rows: Sequence[Row], wrong: Sequence[str]) -> list[str]:
    """All that is wrong, as sentences; empty when all is well."""
    failed = [(row, text) for row in rows for text in row.failed]
    return [
        f"{row.id} {row.title}: not so: {text}; {row.figures.facts}; {row.figures.all_notes()}" for row, text in failed
    ] + list(wrong)
