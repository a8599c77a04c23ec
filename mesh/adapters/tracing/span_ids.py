"""Ids of spans that follow from ids of events, so that processes name each other's spans without telling.

The record of a task has no place for the span of its cause, since a decision must not depend on tracing. Its cause is
named, though, and a span's id is the hash of the name of what it stands for: an attempt of a task, a request, a
decision, a dead letter. Trace ids of runs whose request came without a trace are made in the same way.
"""

import random
import threading
from collections import OrderedDict
from typing import Final

from mesh.core.protocol.event import FAILED, SUCCEEDED, Event, derive_id

IDS_KEPT_MAX: Final = 4_096
"""Ids of spans that a process remembers, so that it makes no two spans of one id."""
_ANSWERS: Final = (f":{SUCCEEDED}", f":{FAILED}")


def trace_id_of(run_id: str) -> str:
    """Return the trace id of a run whose request had none: the same in every process."""
    return derive_id("trace", run_id)


def span_id_of(name: str) -> int:
    """Return the id of the span that stands for the event of this id."""
    return int(derive_id("span", name)[:16], 16) or 1


def attempt_of(answer_id: str) -> str:
    """Return the id of the attempt that an answer of this id belongs to; "" if it is no id of an answer."""
    for ending in _ANSWERS:
        if answer_id.endswith(ending):
            return answer_id.removesuffix(ending)
    return ""


def letter_of(redrive_id: str) -> str:
    """Return the id of the dead letter that a redrive of this id sends; "" if it is no id of a redrive."""
    letter, mark, number = redrive_id.rpartition(":r")
    return letter if mark and number.isdecimal() else ""


def previous_attempt(task: Event) -> str:
    """Return the id of the attempt before this one; "" for the first."""
    return f"{task.task_id}:{task.attempt - 1}" if task.attempt > 1 else ""


class SpanIds:
    """A generator of ids for the SDK: random ones, or the one that was asked for next in this thread."""

    def __init__(self) -> None:
        self._random = random.Random()
        self._next = threading.local()
        self._used: OrderedDict[int, None] = OrderedDict()

    def ask(self, span_id: int, trace_id: int = 0) -> None:
        """Give the next span in this thread these ids. A span id that this process has given before becomes random:
        a second try of one attempt is another span."""
        if span_id in self._used:
            span_id = 0
        else:
            self._used[span_id] = None
            if len(self._used) > IDS_KEPT_MAX:
                self._used.popitem(last=False)
        self._next.ids = (span_id, trace_id)

    def generate_span_id(self) -> int:
        """Return the id of a span (SDK)."""
        span_id, _ = self._take()
        while not span_id:
            span_id = self._random.getrandbits(64)
        return span_id

    def generate_trace_id(self) -> int:
        """Return the id of a trace that begins here (SDK)."""
        span_id, trace_id = self._take()
        self._next.ids = (span_id, 0)
        while not trace_id:
            trace_id = self._random.getrandbits(128)
        return trace_id

    def is_trace_id_random(self) -> bool:
        """Return False: ids of runs follow from the request (SDK)."""
        return False

    def _take(self) -> tuple[int, int]:
        ids: tuple[int, int] = getattr(self._next, "ids", (0, 0))
        self._next.ids = (0, 0)
        return ids
