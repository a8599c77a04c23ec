"""Meshes to simulate, and what their agents do: everything that agents do in practice, by chance.

The same task run twice may answer differently, as a model would: the log decides which answer counts.
"""

import asyncio
from collections.abc import Callable
from functools import lru_cache
from hashlib import blake2b
from random import Random
from typing import Any

from pydantic import TypeAdapter

from mesh.context import Context
from mesh.core.errors import BoardUnavailable, Conflict, InvalidInput
from mesh.core.task.agent import Agent, Emit, Parameter, Reject, RetryLater
from mesh.core.topology.loader import load
from mesh.core.topology.model import AgentSpec, Topology
from tests.sim.breakers import SICK, UNKNOWN, WELL, Call
from tests.sim.loop import NODE

ORDERS = """
mesh:
  name: orders
  prefix: mesh
  inbox: {partitions: PARTITIONS}
  limits: {deadline: 6s, tasks_max: 12, fanout_max: 4, cascade_max: 2, pause: 3s}
topics:
  asks: {ingress: ask, id: id, key: k, order: key, partitions: 2, join: true}
  ends: {egress: [shipped, rejected], key: id, partitions: 2}
agents:
  check: {run: "sim:check", on: ask, emits: [checked, rejected], timeout: 400ms, retry: {attempts: 3, first: 30ms}}
  price:
    run: "sim:price"
    on: ask
    emits: priced
    timeout: 400ms
    key: k
    lanes: 1
    retry: {attempts: 2, first: 50ms}
    fallback: [guess, shrug]
    breaker: {failures: 3, open: 400ms}
  guess: {run: "sim:guess", emits: priced, timeout: 400ms, retry: {attempts: 2, first: 50ms}}
  shrug: {run: "sim:shrug", emits: priced, timeout: 400ms, retry: {attempts: 1, first: 50ms}}
  pick:
    run: "sim:pick"
    on: {all: [checked, priced]}
    emits: [picked, rejected]
    timeout: 400ms
    retry: {attempts: 3, first: 100ms}
  ship:
    run: "sim:ship"
    on: picked
    when: n < 7
    emits: shipped
    lanes: 2
    timeout: 1s
    cache: 5s
    retry: {attempts: 4, first: 20ms}
"""
REVIEWS = """
mesh:
  name: reviews
  prefix: mesh
  inbox: {partitions: PARTITIONS}
  limits: {deadline: 4s, depth_max: 9, visits_max: 3, pause: 3s, budget: {usd: 0.5, tokens: 300}}
topics:
  asks: {ingress: ask, id: id, partitions: 1, join: true}
  ends: {egress: accepted, partitions: 1}
agents:
  write:
    run: "sim:write"
    on: [ask, reworked]
    emits: draft
    timeout: 300ms
    visits_max: 3
    reserve: {usd: 0.1, tokens: 100}
    retry: {attempts: 3, first: 20ms, factor: 3}
  review: {run: "sim:review", on: draft, emits: [reworked, accepted], timeout: 300ms, reserve: {usd: 0.05}}
"""
SPREAD = """
mesh:
  name: spread
  prefix: mesh
  inbox: {partitions: PARTITIONS}
  limits: {deadline: 5s, tasks_max: 20, fanout_max: 5, payload_max: 400B, state_max: 4KB, pause: 3s}
topics:
  asks: {ingress: ask, id: id, partitions: 3, join: true}
  ends: {egress: [part.done, summed], partitions: 3}
agents:
  split: {run: "sim:split", on: ask, emits: [part, header], timeout: 300ms}
  left:
    run: "sim:left"
    on: part
    emits: [half, part.done]
    lanes: 3
    timeout: 300ms
    retry: {attempts: 2, first: 40ms}
  total:
    run: "sim:total"
    on: {all: [half, header]}
    when: header.n < 8
    emits: summed
    timeout: 300ms
    retry: {attempts: 5, first: 10ms}
"""
BULK = """
mesh:
  name: bulk
  prefix: mesh
  inbox: {partitions: PARTITIONS}
  limits: {deadline: 6s, tasks_max: 12, fanout_max: 40, payload_max: 20KB, state_max: 200KB, pause: 3s}
topics:
  asks: {ingress: ask, id: id, partitions: 2, join: true}
  ends: {egress: [line, summed], partitions: 2}
agents:
  split: {run: "sim:split", on: ask, emits: [part, line], timeout: 400ms, retry: {attempts: 2, first: 30ms}}
  pack: {run: "sim:pack", on: part, emits: line, timeout: 400ms, retry: {attempts: 3, first: 30ms}, fallback: [drop]}
  drop: {run: "sim:drop", emits: [line, summed], timeout: 400ms, retry: {attempts: 1, first: 30ms}}
"""
MESHES = {"orders": ORDERS, "reviews": REVIEWS, "spread": SPREAD}
"""Meshes among which a seed chooses."""
LARGE = "bulk"
"""The mesh of worlds in which the log takes only small records: what its agents say is about as large as the limit."""

LATE = "late"
"""The agent that only the wider version has."""

Act = Callable[[AgentSpec, list[Any], Context], Any]
_ANYTHING: TypeAdapter[Any] = TypeAdapter(Any)


@lru_cache(maxsize=64)
def topology(name: str, partitions: int) -> Topology:
    """A mesh of this folder, proved."""
    return load(_text(name, partitions), path=f"{name}.yaml")


@lru_cache(maxsize=64)
def wider(name: str, partitions: int) -> Topology:
    """Another version of that mesh: one more type comes in, and one more agent hears it and the first one."""
    text = _text(name, partitions)
    text = text.replace("topics:\n", "topics:\n  news: {ingress: news, id: id, partitions: 2, join: true}\n")
    return load(f'{text}  {LATE}: {{run: "sim:late", on: [ask, news], timeout: 300ms}}\n', path=f"{name}.yaml")


def _text(name: str, partitions: int) -> str:
    return (BULK if name == LARGE else MESHES[name]).replace("PARTITIONS", str(partitions))


def agent(spec: AgentSpec, act: Act) -> Agent:
    """A function for the worker, with one parameter for each event it joins."""
    names = [f"event{n}" for n in range(max(1, len(spec.on)) if spec.join else 1)]

    async def run(**given: Any) -> Any:
        context = given.pop("context")
        return await act(spec, [given[name] for name in names], context)

    parameters = tuple(Parameter(name, (), {"": _ANYTHING}) for name in names)
    return Agent(run, parameters, "context", None, True, f"sim:{spec.name}")


class Moods:
    """The behaviour of an agent for a task. `trouble` is the share of attempts that fail."""

    def __init__(
        self,
        random: Random,
        *,
        trouble: float,
        board: float,
        killers: float,
        kill: Callable[[], bool],
        bytes_max: int = 0,
    ) -> None:
        """`kill` ends the process in which it is called, and says whether that was a worker. `bytes_max`: what agents
        say is about as large as this; 0: it is small."""
        self._random = random
        self._bytes_max = bytes_max
        self._poison_ids = killers
        self._kill = kill
        self._trouble = trouble
        self._board = board
        self.started: dict[tuple[str, int], int] = {}
        """(task id, attempt) → how often it was begun."""
        self.calls: list[Call] = []
        self.killed: dict[tuple[str, int], list[bool]] = {}
        """(task id, attempt) → what it has killed, each time: a worker, or a cell."""

    async def act(self, spec: AgentSpec, events: list[Any], context: Context) -> Any:
        """As an agent's function: answers, raises, hangs."""
        clock = asyncio.get_running_loop().time
        began_s, how = clock(), SICK
        try:
            answer = await self._act(spec, events, context)
            how = UNKNOWN if isinstance(answer, RetryLater | Reject) else WELL
        except (RuntimeError, SystemExit):
            raise
        except asyncio.CancelledError:
            if (clock() - began_s) * 1000 < spec.timeout_ms:
                how = UNKNOWN
            raise
        except BaseException:
            how = UNKNOWN
            raise
        finally:
            node = NODE.get()
            self.calls.append(Call("" if node is None else node.name, spec.name, began_s, clock(), how))
        return answer

    async def _act(self, spec: AgentSpec, events: list[Any], context: Context) -> Any:
        random = self._random
        key = (context.task_id, context.attempt)
        nonce = self.started[key] = self.started.get(key, 0) + 1
        if self.kills(context.task_id):
            await asyncio.sleep(random.random() * 0.01)
            self.killed.setdefault(key, []).append(self._kill())
            await asyncio.Event().wait()
        if random.random() < 0.8:
            await asyncio.sleep(random.random() * 0.03)
        if random.random() < self._board:
            await self._use_board(events, context)
        if random.random() < 0.3:
            context.spend(usd=f"0.{random.randint(0, 12):02}", tokens=random.randint(0, 90))
        if random.random() < self._trouble:
            declined = await self._go_wrong(spec)
            if declined is not None:
                return declined
        first = events[0] if isinstance(events[0], dict) else {}
        payload = {"id": first.get("id"), "n": random.randint(0, 9), "by": f"{spec.name}.{context.attempt}.{nonce}"}
        return self._large(spec, payload) if self._bytes_max else self._emitted(spec, payload)

    def kills(self, task_id: str) -> bool:
        """Return whether this task kills every process that runs it."""
        digest = blake2b(task_id.encode(), digest_size=4).digest()
        return int.from_bytes(digest, "big") / 2**32 < self._poison_ids

    def _emitted(self, spec: AgentSpec, payload: dict[str, Any]) -> Any:
        random = self._random
        if not spec.emits:
            return None
        if len(spec.emits) > 1 and random.random() < 0.4:
            chosen = list(spec.emits)
        else:
            chosen = [spec.emits[0] if random.random() < 0.75 else random.choice(spec.emits)]
        if random.random() < 0.25:
            chosen += [chosen[0]] * random.randint(1, 3)
        if random.random() < 0.02:
            chosen += ["undeclared"]
        return [Emit(type, {**payload, "at": n}) for n, type in enumerate(chosen)]

    def _large(self, spec: AgentSpec, payload: dict[str, Any]) -> list[Emit]:
        """One event about as large as the log's limit, or many small ones."""
        random = self._random
        emitted: list[Emit] = self._emitted(spec, payload)
        if random.random() < 0.3:
            room = self._bytes_max - random.choice((random.randint(0, 2_000), random.randint(500, 1_000)))
            return [Emit(emitted[0].type, {**payload, "text": "x" * room})]
        if random.random() < 0.5:
            return [Emit(emitted[0].type, {"n": n}) for n in range(random.randint(5, 39))]
        return emitted

    async def _go_wrong(self, spec: AgentSpec) -> RetryLater | Reject | None:
        match self._random.randint(0, 9):
            case 0 | 1 | 2 | 3:
                raise RuntimeError("by chance".ljust(self._random.choice((0, 900, 5_000)) if self._bytes_max else 0))
            case 4:
                raise InvalidInput("final by chance", code="bad_result")
            case 5:
                await asyncio.sleep(spec.timeout_ms / 1000 * 2)
            case 6:
                raise SystemExit(3)
            case 7:
                await asyncio.sleep(spec.timeout_ms / 1000 * 0.9)
            case 8:
                return RetryLater(self._random.random() * 0.5, "not now, by chance")
            case 9:
                return Reject("never, by chance")
        return None

    async def _use_board(self, events: list[Any], context: Context) -> None:
        random, key = self._random, f"k/{self._random.randint(0, 2)}"
        try:
            match random.randint(0, 3):
                case 0:
                    await context.board.add("n", 1)
                case 1:
                    await context.board.append(f"list/{key}", {"task": context.task_id}, items_max=5)
                case 2:
                    await context.board.update(key, lambda value: (value or 0) + 1)
                case 3:
                    await context.board.put(key, random.randint(0, 9))
        except Conflict:
            if random.random() < 0.5:
                raise
        except BoardUnavailable:
            if random.random() < 0.5:
                raise
