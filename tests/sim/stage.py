"""One simulated mesh: processes that die and are started again, clients, and the end, where all must be at rest."""

import asyncio
from collections.abc import Callable
from random import Random
from typing import Any

import orjson

from mesh.adapters.ports import TopicSpec
from mesh.app.process import Process
from mesh.app.wiring import topic_specs
from mesh.client import Mesh
from mesh.core.errors import LogUnavailable, NotAccepted, Unavailable, WaitTimeout
from mesh.core.protocol.record import RECORD_BYTES_MAX, NewRecord, record_bytes
from mesh.runtime.checkpoint_manager import COSTS
from mesh.settings import Settings
from tests.sim.board import SimBoard, Store
from tests.sim.broker import Broker
from tests.sim.clock import SimClock
from tests.sim.clocks import BROKERS
from tests.sim.isolated_processes import CellHost, SimCells
from tests.sim.log import SimLog
from tests.sim.loop import NODE, WORLD, bury
from tests.sim.meshes import LATE, Moods, agent, topology, wider
from tests.sim.plan import FAULTS_UNTIL_MS, Plan, Shape
from tests.sim.world import Host, World

REQUESTS_UNTIL_MS = 2_000
REST_WITHIN_MS = 30_000
"""After the last fault everything must have ended within this."""
STOP_WITHIN_MS = 15_000
LOOK_EVERY_MS = 200
DEFAULTS = Settings().model_dump()


class Machine:
    """One place where a process runs, again and again."""

    def __init__(self, stage: "Stage", number: int, shape: Shape) -> None:
        self.stage = stage
        self.number = number
        self.shape = shape
        self.lives = 0
        self.host: Host
        self.process: Process
        self.isolated_processes: SimCells
        self.main: asyncio.Task[None] | None = None
        self.wanted = True
        self.topology = stage.before

    def roll(self) -> None:
        """Go over to the other topics.yaml: at once, or with the next life."""
        if self.topology is self.stage.after:
            return
        self.topology = self.stage.after
        if self.main is not None and not self.main.done() and not self.host.dead:
            self.stage.world.tell(self.host.name, "is told to stop for another topics.yaml")
            self.host.context.run(self.process.stop)

    def start(self) -> None:
        """Begin a new life."""
        stage, plan = self.stage, self.stage.plan
        self.lives += 1
        skew_ms = stage.random.randint(-plan.skew_ms, plan.skew_ms) if plan.skew_ms else 0
        self.host = Host(f"p{self.number}.{self.lives}", skew_ms=skew_ms)
        stage.hosts.append(self.host)
        stage.world.tell(self.host.name, "starts", self.shape.services, self.shape.agents)
        self.main = self.host.context.run(self._run)
        self.main.add_done_callback(self._ended, context=WORLD)

    def _run(self) -> "asyncio.Task[None]":
        stage, plan = self.stage, self.stage.plan
        names = [*self.shape.agents, LATE] if self.shape.agents else ()
        specs = [self.topology.agents[name] for name in names if name in self.topology.agents]
        agents = {spec.name: agent(spec, stage.moods.act) for spec in specs}
        self.isolated_processes = SimCells(stage.world, stage.store, self.host, agents, stage.hosts)
        self.process = Process(
            SimLog(stage.broker, self.host, plain=plan.writes_plain(self.host.name)),
            self.topology,
            stage.settings(plan),
            services=self.shape.services,
            agents=agents,
            board=SimBoard(stage.store, self.host),
            clock=SimClock(stage.world, self.host),
            name=self.host.name,
            isolated_processes=self.isolated_processes,
        )
        if self.process.orchestrator is not None and plan.checkpoint_us >= 0:
            costs = COSTS._replace(tail_us_min=plan.checkpoint_us, row_us=0)
            self.process.orchestrator._checkpoints._costs = costs
        return stage.world.loop.create_task(self.process.run(), name=self.host.name)

    def _ended(self, task: "asyncio.Task[None]") -> None:
        error = None if task.cancelled() else task.exception()
        self.stage.world.tell(self.host.name, "ended", type(error).__name__)
        self.stage.gone(self.host)
        self.host.dead = True  # a process that ended has no tasks left that could do anything
        surprises = [e for e in _leaves(error) if not isinstance(e, Unavailable | WaitTimeout)]
        for surprise in surprises:
            self.stage.violations.append(f"{self.host.name} died of {surprise!r}")
        if self.wanted:
            self.stage.world.later(self.stage.random.randint(20, 400), self._again, self.lives)

    def kill(self, down_ms: int) -> None:
        """As `kill -9` does; started again after a while."""
        if self.main is None or self.main.done() or self.host.dead:
            return
        self.stage.world.tell(self.host.name, "killed")
        self.host.dead = True
        self.isolated_processes.kill()
        self.stage.gone(self.host)
        self.stage.world.later(down_ms, self._again, self.lives)

    def _again(self, life: int) -> None:
        if self.lives == life and self.wanted:
            self.start()


class Stage:
    """See the module. `violations` gathers what must not have happened."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.random = Random(f"stage {plan.seed}")
        self.world = World(plan.seed, slow=plan.slow, slow_ms=plan.slow_ms, dribble=plan.dribble)
        limit = plan.record_bytes_max or RECORD_BYTES_MAX
        self.broker = Broker(
            self.world,
            gap=plan.gap,
            refuse=plan.refuse,
            eager=plan.eager,
            record_bytes_max=limit,
            drifts=self._drifts(),
        )
        self.store = Store(self.world)
        narrow = topology(plan.mesh, plan.partitions)
        wide = wider(plan.mesh, plan.partitions) if plan.rolls else narrow
        self.before = wide if plan.rolls == "removes" else narrow
        self.after = wide if plan.rolls == "adds" else narrow
        self.topology = wide
        """The wider one of both."""
        self.moods = Moods(
            Random(f"moods {plan.seed}"),
            trouble=plan.trouble,
            board=plan.board,
            killers=plan.killers,
            kill=self._kill,
            bytes_max=plan.record_bytes_max,
        )
        self.hosts: list[Host] = []
        self.violations: list[str] = []
        self.machines = [Machine(self, n, shape) for n, shape in enumerate(plan.shapes)]
        self.guests: list[Machine] = []
        self.client = Host("client")
        self.acked: list[str] = []
        """Ids of requests whose append was acknowledged."""
        self.answers: dict[str, str] = {}
        """Run id → ending, as a client was told."""
        self.at_rest = False

    def _kill(self) -> bool:
        """End the process that is at work now. False: it was a cell."""
        host = NODE.get()
        if isinstance(host, CellHost):
            self.world.tell(host.name, "killed")
            host.kill()
            return False
        for machine in (*self.machines, *self.guests):
            if machine.main is not None and machine.host is host:
                machine.kill(50)
        return True

    def _drifts(self) -> list[float]:
        """Return the drifts of the brokers' clocks."""
        random = Random(f"drifts {self.plan.seed}")
        return [random.uniform(-self.plan.drift, self.plan.drift) for _ in range(BROKERS)]

    @staticmethod
    def settings(plan: Plan) -> Settings:
        """Return the settings of every process."""
        return Settings.model_construct(
            **{
                **DEFAULTS,
                "session_timeout_ms": plan.session_timeout_ms,
                "poll_records_max": plan.records_max,
                "drain_timeout_ms": 1_000,
            }
        )

    def gone(self, host: Host) -> None:
        """Cut a host off, for good or until it is back."""
        host.silent_since_s = self.world.loop.time()
        for group in self.broker.groups.values():
            group.listen_for(host)

    # ----------------------------------------------------------------------------------------------------------- play

    def play(self, schedule: Callable[["Stage"], None]) -> None:
        """Run to the end. `schedule` puts the faults on the world's calendar."""
        loop = self.world.loop
        self.broker.create([TopicSpec(s.name, s.partitions, s.config) for s in topic_specs(self.topology)])
        self.client.context.run(self._ask_for_runs)
        for machine in self.machines:
            self.world.later(self.random.randint(0, 100), machine.start)
        schedule(self)
        for machine in self.machines if self.plan.rolls else ():
            self.world.later(self.random.randint(300, FAULTS_UNTIL_MS), machine.roll)
        self.world.later(FAULTS_UNTIL_MS, self._heal)
        self.world.later(FAULTS_UNTIL_MS + LOOK_EVERY_MS, self._look)
        loop.run_until(lambda: self.at_rest)
        self._stop()

    def _heal(self) -> None:
        self.world.tell("heal")
        self.store.silent = False
        for machine in self.machines:
            machine.roll()
        for machine in (*self.machines, *self.guests):
            if machine.main is not None:
                machine.host.armed.clear()
                self.mend(machine.host)
                self.unpause(machine.host)

    def mend(self, host: Host) -> None:
        """The link of a host works again."""
        host.cut = ""
        held, host.held = host.held, []
        for deliver in held:
            deliver()
        mended, host.mended = host.mended, []
        for future in mended:
            if not future.done():
                future.set_result(None)
        if not host.silent:
            host.silent_since_s = None

    def unpause(self, host: Host) -> None:
        """A stopped process goes on."""
        if host.paused:
            self.world.tell(host.name, "goes on")
            self.world.loop.resume(host)
            if not host.silent:
                host.silent_since_s = None

    def _look(self) -> None:
        """Whether all is done: every group at the end of its topic, every run ended."""
        late_ms = self.world.loop.time() * 1000 - FAULTS_UNTIL_MS
        waiting = self.waiting()
        if not waiting:
            self.at_rest = True
        elif late_ms > REST_WITHIN_MS:
            self.violations.append(f"not at rest {REST_WITHIN_MS} ms after the last fault: {'; '.join(waiting[:5])}")
            self.at_rest = True
        else:
            self.world.later(LOOK_EVERY_MS, self._look)

    def waiting(self) -> list[str]:
        """Return the work that is left."""
        found = [
            f"process {m.host.name} is down" for m in self.machines if m.main is None or m.main.done() or m.host.dead
        ]
        prefix, topology = self.topology.prefix, self.after
        groups = {f"{prefix}.orchestrator": [topology.inbox]}
        groups[f"{prefix}.intake"] = [rule.name for rule in topology.topics.values() if rule.ingress]
        groups.update({f"{prefix}.{name}": [topology.tasks(name)] for name in topology.agents})
        for name, topics in groups.items():
            for topic in topics:
                for n, partition in enumerate(self.broker.topics[topic]):
                    place = self.broker.group(name).commits.get((topic, n))  # type: ignore[call-overload]
                    if partition.end and (place is None or place.offset < partition.end):
                        found.append(f"{name} stands at {place} of {topic}:{n}, whose end is {partition.end}")
        live: set[int] = set()
        for machine in (*self.machines, *self.guests):
            if machine.main is not None and not machine.host.dead and machine.process.orchestrator is not None:
                for place, state in machine.process.orchestrator._states.items():
                    live.add(place.partition)
                    found += [f"run {id} is open" for id in state.runs]
        return found + [f"partition {n} has no owner" for n in range(topology.inbox_partitions) if n not in live]

    def _stop(self) -> None:
        """Drain and end all processes."""
        loop = self.world.loop
        machines = [*self.machines, *self.guests]
        for machine in machines:
            machine.wanted = False
            if machine.main is not None and not machine.main.done() and not machine.host.dead:
                machine.host.context.run(machine.process.stop)
        until = loop.time() + STOP_WITHIN_MS / 1000
        loop.call_at(until, lambda: None, context=WORLD)

        def ended() -> bool:
            return loop.time() >= until or all(m.main is None or m.main.done() or m.host.dead for m in machines)

        loop.run_until(ended)
        for machine in machines:
            if machine.main is not None and not machine.main.done() and not machine.host.dead:
                self.violations.append(f"{machine.host.name} did not stop within {STOP_WITHIN_MS} ms")
        self.world.over = True
        for host in (*self.hosts, self.client):
            bury(host.tasks)
        loop.close()

    def vanish(self) -> None:
        """Let go of all that refers to one another, so that it is freed at once and not left to the collector."""
        for host in (*self.hosts, self.client):
            for kept in (host.tasks, host.backlog, host.held, host.mended):
                kept.clear()
            host.watch, host.context = None, WORLD
        for machine in (*self.machines, *self.guests):
            machine.main = None
            if machine.lives:
                del machine.process, machine.host
        self.broker.vanish()
        del self.moods

    # -------------------------------------------------------------------------------------------------------- clients

    def _ask_for_runs(self) -> None:
        log = SimLog(self.broker, self.client, plain=self.plan.writes_plain("client"))
        old, new = Mesh(log, self.before), Mesh(log, self.after)
        for n in range(self.plan.requests):
            at_s = self.random.randint(0, REQUESTS_UNTIL_MS) / 1000
            mesh = old if n % 2 else new
            ask = self._through_client(mesh, n) if self.random.random() < 0.3 else self._through_topic(log, n)
            self.world.loop.create_task(self._after(at_s, ask), context=self.client.context.copy())

    async def _after(self, delay_s: float, then: Any) -> None:
        await asyncio.sleep(delay_s)
        await then

    async def _through_topic(self, log: SimLog, n: int) -> None:
        random = self.random
        type, rule = random.choice(list(self.after.ingress.items()))
        id = f"r{n}"
        value = orjson.dumps({"id": id, "n": random.randint(0, 9), "k": _key(n)})
        headers: list[tuple[str, bytes]] = []
        if random.random() < 0.2:
            run = b"shared" if random.random() < 0.5 else id.encode()
            headers = [
                ("ce_specversion", b"1.0"),
                ("ce_id", id.encode()),
                ("ce_source", b"/sim"),
                ("ce_type", type.encode()),
                ("ce_correlationid", run),
            ]
        if random.random() >= 0.95:
            value, key = b"{broken", id
        else:
            key = _key(n) if rule.ordered else id
        record = NewRecord(rule.name, key.encode(), value, headers)
        if self.plan.record_bytes_max and value != b"{broken" and random.random() < 0.3:
            record = self._as_large_as_may_be(record)
        for _ in range(2 if random.random() < 0.15 else 1):
            await self._surely(log, record)
        self.acked.append(id)

    def _as_large_as_may_be(self, record: NewRecord) -> NewRecord:
        """A request whose record just fits into its topic, and into the inbox or not."""
        value = record.value or b""
        padding = self.plan.record_bytes_max - record_bytes(record) - 12 - self.random.choice((0, 0, 330, 400, 450))
        return record._replace(value=value[:-1] + b',"text":"%s"}' % (b"x" * (padding - len(b',"text":""'))))

    async def _surely(self, log: SimLog, record: NewRecord) -> None:
        """Append, again and again until it is acknowledged, as an upstream system would."""
        while True:
            try:
                await log.append([record])
                return
            except LogUnavailable:
                await asyncio.sleep(0.2)

    async def _through_client(self, mesh: Mesh, n: int) -> None:
        type = self.random.choice(list(mesh.topology.ingress))
        try:
            given = {"id": f"c{n}", "n": n % 10, "k": _key(n)}
            run = await mesh.publish(type, given, id=f"c{n}", run_id=f"client-{n}" if n % 4 else None)
            self.acked.append(f"c{n}")
            self.answers[run.id] = (await run.outcome(timeout_s=60)).ending
        except (Unavailable, NotAccepted, WaitTimeout) as error:
            self.world.tell("client", n, "hears", type_name(error))


def _key(n: int) -> str:
    """Return the ordering key of a request."""
    return f"k{n % 2}"


def type_name(error: BaseException) -> str:
    """Name of an error's class."""
    return type(error).__name__


def _leaves(error: BaseException | None) -> list[BaseException]:
    if error is None:
        return []
    if isinstance(error, BaseExceptionGroup):
        return [leaf for inner in error.exceptions for leaf in _leaves(inner)]
    return [error]
