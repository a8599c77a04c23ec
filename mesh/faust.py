"""Agents of an existing Faust app join a mesh.

    app = faust.App("wordcount", broker="kafka://127.0.0.1:9092")

    @app.agent(value_type=Text)
    async def count(texts): ...

    join(app, topics="topics.yaml")

topics.yaml names the app below the agent (`faust: wordcount`). The app then reads the tasks of that agent in its own
consumer group, and gives each to the agent as one event; its tables, timers, web views and other agents stay. All that
happens to a task besides is the worker's: validation, limits, answers, commits, poison tasks, `mesh stop`.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from contextvars import ContextVar
from typing import Any

from mesh.adapters.faust.agents import described, joining
from mesh.adapters.faust.calls import Calls, current_context
from mesh.adapters.faust.tasks import FaustGroup
from mesh.adapters.kafka import codes, undecodable
from mesh.adapters.kafka.commits import store_for
from mesh.app.process import Process
from mesh.app.wiring import check_topics, load_topology, open_board, open_log
from mesh.context import Context
from mesh.core.errors import ConfigInvalid
from mesh.core.protocol.event import Event
from mesh.core.topology.model import AgentSpec, Topology
from mesh.services.worker.attempt import Attempt
from mesh.settings import Settings
from mesh.settings import load as load_settings

_message: ContextVar[Any] = ContextVar("message")
"""Faust's message of the task that this call works on."""
Answer = Callable[[Event, Attempt], Awaitable[Event | None]]


def join(app: Any, topics: str = "topics.yaml", *, settings: Settings | None = None) -> None:
    """Let agents of a Faust app work for a mesh. Call it once, after the agents and before the app starts.

    `topics`: the file of the topology. `settings`: by default those of environment and mesh.toml; the log is the app's
    broker. Raises TopologyInvalid, ConfigInvalid.
    """
    codes.install()  # both before Faust's consumer fetches: results of two classes would not be told apart
    undecodable.install()
    topology = load_topology(topics)
    specs = {name: spec for name, spec in topology.agents.items() if spec.faust}
    if not specs:
        raise ConfigInvalid(
            "no agent is run by a Faust app", where=topics, remedy="Write `faust: APP_ID` below the agents of this app"
        )
    joined = JoinedApp(app, topology, settings or load_settings({"topology": topics}).settings, specs)
    app.task(joined.run)
    leave = app.on_stop

    async def on_stop() -> None:
        await joined.stop()
        await leave()

    app.on_stop = on_stop


def context() -> Context | None:
    """Return the Context of the task that the agent is at work on; None for an event that is no task."""
    found: Context | None = current_context()
    return found


class JoinedApp:
    """A worker of the mesh in the process and event loop of a Faust app."""

    def __init__(self, app: Any, topology: Topology, settings: Settings, specs: dict[str, AgentSpec]) -> None:
        self._app, self._topology, self._settings, self._specs = app, topology, settings, specs
        self._group = FaustGroup(app, store_for)
        self._calls = {name: Calls(app, agent) for name, agent in joining(app, specs, topology.path).items()}
        self._agents = {name: described(calls.agent, calls, _message) for name, calls in self._calls.items()}
        self._process: Process | None = None
        self._ended = asyncio.Event()
        for name in specs:
            self._group.read(topology.tasks(name))

    async def run(self) -> None:
        """Work until `stop`. Raises ConfigInvalid, TopicsInvalid, and any error that ends a worker: the app ends."""
        self._check_app()
        async with AsyncExitStack() as exits:
            exits.callback(self._ended.set)
            brokers = ",".join(f"{url.host}:{url.port or 9092}" for url in self._app.conf.broker_consumer)
            settings = self._settings.model_copy(update={"log": f"kafka://{brokers}"})
            log = open_log(settings, client=self._app.conf.id)
            await log.start()
            exits.push_async_callback(log.close)
            await check_topics(log, self._topology)
            board = open_board(settings, self._topology.prefix, beside=log)
            exits.push_async_callback(board.close)
            await board.start()
            self._group.log = log
            self._process = process = Process(
                log,
                self._topology,
                settings,
                services=("worker",),
                agents=self._agents,
                board=board,
                groups=self._group,
            )
            assert process.worker is not None  # there are agents, see `join`
            for consumer in process.worker.consumers.values():
                consumer.around(_with_message)
            await process.run()
            for calls in self._calls.values():
                await calls.close()

    async def stop(self) -> None:
        """Let running tasks end, and return when their answers are sent."""
        if self._process is not None:
            self._process.stop()
            await self._ended.wait()

    def _check_app(self) -> None:
        """Raise ConfigInvalid for settings of the app under which tasks could be lost."""
        conf, where = self._app.conf, f"Faust app {self._app.conf.id!r}"
        for name, spec in self._specs.items():
            if spec.faust != conf.id:
                raise ConfigInvalid(
                    f"agent {name!r} belongs to another app",
                    where=f"{self._topology.path}:{spec.line}",
                    expected=f"faust: {conf.id}",
                    got=f"faust: {spec.faust}",
                )
        for key, wanted in (("consumer_auto_offset_reset", "earliest"), ("processing_guarantee", "at_least_once")):
            got = str(getattr(getattr(conf, key), "value", getattr(conf, key)))
            if got != wanted:
                remedy = f"Set {key}={wanted!r}: otherwise tasks or changes of tables would be lost"
                raise ConfigInvalid(f"{key} does not fit a mesh", where=where, expected=wanted, got=got, remedy=remedy)


def _with_message(answer: Answer) -> Answer:
    """Return an answer whose call finds Faust's message of its task."""

    async def answered(task: Event, attempt: Attempt) -> Event | None:
        _message.set(attempt.work.record.message)  # type: ignore[attr-defined]  # records of FaustGroup have it
        return await answer(task, attempt)

    return answered
