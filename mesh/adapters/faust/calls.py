"""Calls of a user's `@app.agent`: its function runs on as a stream processor, and each task is one event to it.

A Faust agent has no calls, only a stream. The function is done with an event when it asks the stream for the next one.
What it has yielded by then is the result. Instances of the function are kept for the tasks that come. One that raised
or was cancelled is replaced, as Faust does with its own.
"""

import asyncio
from collections.abc import AsyncIterable
from typing import Any, NoReturn

import faust
from faust.events import Event

from mesh.core.errors import InvalidInput


class TaskEvent(Event):
    """A task as an event of a stream. `context`: the task's Context."""

    def __init__(self, app: Any, value: Any, message: Any, context: Any) -> None:
        super().__init__(app, message.key, value, dict(message.headers or ()), message)
        self.context = context


class _Stream(faust.Stream[Any]):
    """A stream of tasks. Operators that hold events back or send them elsewhere would answer tasks before their end."""

    def _refuse(self, *_: Any, **__: Any) -> NoReturn:
        raise InvalidInput(
            "an agent of the mesh handles one event at a time",
            code="bad_agent",
            where="its stream",
            expected="`async for` over the stream, its events() or items()",
            got="take, noack_take, group_by, through or a join of streams",
            remedy="Do that in another agent of the app, to which this one sends",
        )

    take = noack_take = take_with_timestamp = group_by = through = combine = join = left_join = _refuse


class _Instance:
    """One run of the function, which gets one event after the other."""

    def __init__(self, app: Any, agent: Any) -> None:
        self._app, self._agent = app, agent
        self._events: asyncio.Queue[TaskEvent] = asyncio.Queue()
        self._is_given = False
        """The function has the event; it is done with that when it asks for the next one."""
        self._values: list[Any] = []
        self._done: asyncio.Future[BaseException | None] | None = None
        self._task = asyncio.get_running_loop().create_task(self._run(), name=f"agent {agent.name}")

    @property
    def has_ended(self) -> bool:
        return self._task.done()

    async def call(self, event: TaskEvent) -> list[Any]:
        """Give an event to the function, and return what it yields for that. Raises what it raises."""
        self._values = []
        done = self._done = asyncio.get_running_loop().create_future()
        self._events.put_nowait(event)
        try:
            error = await done
        except asyncio.CancelledError:
            await self.close()
            raise
        if error is not None:
            raise error
        return self._values

    async def close(self) -> None:
        """Cancel the function and return when it has ended."""
        self._done = None
        self._task.cancel()
        await asyncio.wait((self._task,))

    async def _run(self) -> None:
        error: BaseException | None = None
        try:
            await self._consume()
        except BaseException as raised:  # noqa: BLE001  # the answer of the task says what it was
            error = raised
        self._end_event(error)

    async def _consume(self) -> None:
        try:
            result = self._agent.fun(_Stream(app=self._app, channel=self, beacon=self._app.beacon))
            if isinstance(result, AsyncIterable):
                async for value in result:
                    self._values.append(value)
                    await self._agent._delegate_to_sinks(value)
            else:
                await result
        except Exception as error:
            if self._agent._on_error is not None:
                await self._agent._on_error(self._agent, error)
            raise

    def _end_event(self, error: BaseException | None) -> None:
        self._is_given = False
        done, self._done = self._done, None
        if done is not None and not done.done():
            done.set_result(error)

    # -------------------------------------------------------------------------- the source of the stream of this run

    def __aiter__(self) -> "_Instance":
        return self

    async def __anext__(self) -> TaskEvent:
        if self._is_given:
            self._end_event(None)
        event = await self._events.get()
        # Faust drops events of an earlier generation, and all of them while it rebalances. This one is in work.
        await self._app.flow_control.acquire()
        self._is_given = True
        event.message.generation_id = self._app.consumer_generation_id
        return event


class Calls:
    """Calls of one agent, as many at once as its callers make."""

    def __init__(self, app: Any, agent: Any) -> None:
        self._app, self.agent = app, agent
        self._idle: list[_Instance] = []

    async def call(self, value: Any, message: Any, context: Any) -> list[Any]:
        """Give one task to the agent, and return what it yields for it. Raises what the agent raises."""
        while self._idle and self._idle[-1].has_ended:
            self._idle.pop()
        instance = self._idle.pop() if self._idle else _Instance(self._app, self.agent)
        values = await instance.call(TaskEvent(self._app, value, message, context))
        self._idle.append(instance)
        return values

    async def close(self) -> None:
        """Cancel instances that wait for a task."""
        for instance in self._idle:
            await instance.close()
        self._idle.clear()


def current_context() -> Any:
    """Return the context of the task that the agent is at work on; None outside of one."""
    event = faust.current_event()
    return event.context if isinstance(event, TaskEvent) else None
