"""A thread pool for blocking functions, whose callers may give up.

A thread cannot be cancelled. When its caller gives up, the thread is abandoned: another one takes its place in the
pool, its result is ignored, and it ends after its call. All threads are daemons, so that none keeps the process alive.
"""

import asyncio
import os
import threading
from collections.abc import Callable
from contextvars import copy_context
from functools import partial
from queue import SimpleQueue
from typing import Any

from mesh.runtime.execution.loop_guard import FORKED


class _Job:
    """A call and the future of its caller."""

    __slots__ = ("answer", "begun", "call", "ended", "given_up", "loop")

    def __init__(self, call: Callable[[], Any], loop: asyncio.AbstractEventLoop) -> None:
        self.call = call
        self.loop = loop
        self.answer: asyncio.Future[tuple[Any, BaseException | None]] = loop.create_future()
        self.begun = self.ended = self.given_up = False


class Threads:
    """A pool that runs at most `threads_max` calls at once. Further calls wait. Threads are started when needed.

    `on_abandon` is called in the loop for each thread that is abandoned, and `on_late` when such a thread has ended.
    """

    def __init__(
        self, threads_max: int, *, name: str, on_abandon: Callable[[], None], on_late: Callable[[], None]
    ) -> None:
        self._threads_max = threads_max
        self._name = name
        self._on_abandon = on_abandon
        self._on_late = on_late
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._threads = 0
        self._idle = 0
        self._abandoned = 0

    @property
    def abandoned_calls(self) -> int:
        """The number of threads that still run a call which its caller gave up."""
        return self._abandoned

    async def run(self, call: Callable[[], Any]) -> Any:
        """Run a call in a thread, in a copy of the current context; return its value or raise its error.

        When cancelled, it abandons the thread at once.
        """
        job = _Job(partial(copy_context().run, call), asyncio.get_running_loop())
        with self._lock:
            waiting = self._jobs.qsize() + 1
            more = waiting > self._idle and self._threads < self._threads_max
            self._threads += more
        self._jobs.put(job)
        if more:
            self._start()
        try:
            value, error = await job.answer
        except asyncio.CancelledError:
            self._give_up(job)
            raise
        if error is not None:
            try:
                raise error
            finally:
                del job, error  # the traceback holds this frame: a reference back to the error would be a cycle
        return value

    def close(self) -> None:
        """End the idle threads. Calls under way go on, and their results are ignored."""
        with self._lock:
            for _ in range(self._threads):
                self._jobs.put(None)

    def _start(self) -> None:
        threading.Thread(target=self._work, name=self._name, daemon=True).start()

    def _give_up(self, job: _Job) -> None:
        with self._lock:
            job.given_up = True
            if job.ended or not job.begun:
                return
            self._abandoned += 1
            # The pool keeps its size: a thread starts now if a call waits, else when one is needed.
            more = self._jobs.qsize() > self._idle
            self._threads -= not more
        if more:
            self._start()
        self._on_abandon()

    def _work(self) -> None:
        pid = os.getpid()
        while True:
            with self._lock:
                self._idle += 1
            job = self._jobs.get()
            with self._lock:
                self._idle -= 1
                if job is None:
                    self._threads -= 1
                    return
                if job.given_up:
                    continue
                job.begun = True
            value, raised = None, None
            try:
                value = job.call()
            except BaseException as error:  # noqa: BLE001  # passed to the caller, even SystemExit
                raised = error
            if os.getpid() != pid:
                os._exit(FORKED)  # a forked copy of this process that the call made
            with self._lock:
                job.ended, late = True, job.given_up
                self._abandoned -= late
            try:
                job.loop.call_soon_threadsafe(self._on_ended, job, value, raised, late)
            except RuntimeError:
                return  # the loop is closed, so no caller waits
            if late:
                return
            del job, value, raised  # so that an idle thread keeps nothing alive

    def _on_ended(self, job: _Job, value: Any, raised: BaseException | None, late: bool) -> None:
        if late:
            self._on_late()
        elif not job.answer.done():
            job.answer.set_result((value, raised))
