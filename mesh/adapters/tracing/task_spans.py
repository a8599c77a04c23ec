"""Spans of a worker: `process <topic>` of each attempt, `invoke_agent <agent>` inside it, `send <topic>` of its answer.

A span of an attempt is a child of the attempt that caused its task, or of the request's span. It links to the attempt
before it, or to the dead letter that a redrive sent again. An attempt outside the sample costs two readings of the
clock, and its span is made afterwards if it failed or was slow (`kept_spans`).
"""

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from time import time_ns
from typing import Concatenate, Final, NamedTuple, ParamSpec, TypeAlias, TypeVar

from opentelemetry import baggage, context, trace

from mesh.adapters.tracing import span_names as names
from mesh.adapters.tracing.span_factory import SpanFactory, failed, headers_of
from mesh.adapters.tracing.span_ids import attempt_of, letter_of, previous_attempt
from mesh.core.protocol.event import FAILED, Event
from mesh.core.protocol.record import parse_coordinates

P = ParamSpec("P")
T = TypeVar("T")
Answers: TypeAlias = Callable[Concatenate[Event, P], Awaitable[Event | None]]
"""A function that answers a task, or returns None when it gives up."""
PAYLOAD_KEPT_MAX: Final = 1_024
"""Bytes of a payload that the ring buffer keeps with its task, since a copy without them costs more time."""
DEFERRED: Final = frozenset({"later", "left_alone", "run_ended"})
"""Failures that are no errors of the attempt."""


class Place(NamedTuple):
    """The topic that tasks of one agent come from, and the group that reads it."""

    topic: str
    group: str


class TaskSpans:
    """Spans of the tasks of one agent."""

    def __init__(self, factory: SpanFactory, *, topic: str, group: str) -> None:
        self._factory, self._place = factory, Place(topic, group)

    def around(self, answer: Answers[P]) -> Answers[P]:
        """Return `answer` with a span around each task, or `answer` itself without a provider."""
        factory = self._factory
        if not factory.is_active:
            return answer

        async def _traced_event(task: Event, /, *args: P.args, **kwargs: P.kwargs) -> Event | None:
            if factory.is_sampled(task):
                with self.process(task) as span:
                    answered = await answer(span.task, *args, **kwargs)
                    if answered is not None:
                        span.answered(answered)
                return answered
            began_ns = time_ns()
            answered = await answer(task, *args, **kwargs)
            if factory.kept is not None and answered is not None:
                self._left_out(task, answered, began_ns)
            return answered

        return _traced_event

    @property
    def invoked(self) -> Callable[[Awaitable[T], Event], Awaitable[T]] | None:
        """What puts a span around the call of a function, in the current span if that is recorded; None: nothing."""
        return self._invoked_if_recorded if self._factory.is_active else None

    def _invoked_if_recorded(self, call: Awaitable[T], task: Event) -> Awaitable[T]:
        return self._invoked(call, task) if trace.get_current_span().is_recording() else call

    async def _invoked(self, call: Awaitable[T], task: Event) -> T:
        attributes = {
            names.GENAI_OPERATION: names.INVOKE_AGENT,
            names.GENAI_AGENT: task.agent,
            names.GENAI_CONVERSATION: task.run_id,
        }
        assert self._factory.tracer is not None
        span = self._factory.tracer.start_span(f"{names.INVOKE_AGENT} {task.agent}", attributes=attributes)
        with trace.use_span(span, True, record_exception=False, set_status_on_exception=False):
            try:
                return await call
            except BaseException as error:
                span.set_attribute(names.ERROR_TYPE, f"{type(error).__module__}.{type(error).__qualname__}")
                span.set_status(trace.StatusCode.ERROR)
                raise

    def sending(self, answer: Event, topic: str) -> Callable[[], None] | None:
        """Start the span of an answer on its way to the log; return the function that ends it. None: it has no span."""
        if not (self._factory.is_active and answer.traceparent and self._factory.is_sampled(answer)):
            return None
        attributes = {
            names.OPERATION_NAME: names.SEND,
            names.OPERATION_TYPE: names.SEND,
            names.DESTINATION: topic,
            names.MESSAGE_ID: answer.id,
            names.CONVERSATION_ID: answer.run_id,
            names.EVENT_TYPE: answer.type,
        }
        return self._factory.begin(answer, attributes).end

    @contextmanager
    def process(self, task: Event) -> Iterator["Span"]:
        """Open the span of one attempt of a task as the current span. Its answer continues the trace from this span."""
        if not self._factory.is_active:
            yield Span(task, None)
            return
        span = self._start(task)
        headers = headers_of(span)
        onward = replace(task, traceparent=headers.traceparent, tracestate=headers.tracestate)
        here = baggage.set_baggage(names.BAGGAGE_RUN, task.run_id, trace.set_span_in_context(span))
        token = context.attach(here)
        try:
            yield Span(onward, span)
        finally:
            context.detach(token)
            span.end()

    def _start(self, task: Event, *, why: str = "", start_ns: int | None = None) -> trace.Span:
        factory, place = self._factory, self._place
        parent = factory.parent(task, attempt_of(task.cause_id))
        links = factory.link(parent, previous_attempt(task), names.PREVIOUS_ATTEMPT) or factory.link(
            parent, letter_of(task.cause_id), names.DEAD_LETTER
        )
        found = parse_coordinates(task.origin)
        attributes: dict[str, str | int] = {
            names.OPERATION_NAME: names.PROCESS,
            names.OPERATION_TYPE: names.PROCESS,
            names.DESTINATION: place.topic,
            names.GROUP: place.group,
            names.MESSAGE_ID: task.id,
            names.CONVERSATION_ID: task.run_id,
            names.EVENT_TYPE: task.type,
            names.GENAI_AGENT: task.agent,
            names.TASK_ID: task.task_id,
            names.ATTEMPT: task.attempt,
            names.DEPTH: task.depth,
        }
        if found is not None:
            attributes[names.PARTITION] = str(found.partition)
            attributes[names.KAFKA_OFFSET if factory.system == "kafka" else names.OFFSET] = found.offset
        return factory.start(parent, attributes, of=task.id, run_id=task.run_id, links=links, why=why, at=start_ns)

    def _left_out(self, task: Event, answered: Event, began_ns: int) -> None:
        """Export the span of an attempt outside the sample if it ended badly, else keep it for a while."""
        ring, ended_ns = self._factory.kept, time_ns()
        assert ring is not None
        bare = replace(task, data=b"") if len(task.data) > PAYLOAD_KEPT_MAX else task
        fault = answered.fault if answered.kind == FAILED else None
        export = partial(self._export, bare, fault and (fault.cls or fault.code, fault.message), (began_ns, ended_ns))
        if fault is not None and fault.code not in DEFERRED:
            ring.export(task.run_id, "failed")
        elif ring.is_slow(began_ns, ended_ns):
            ring.export(task.run_id, "slow")
        ring.add(task.run_id, export)

    def _export(self, task: Event, fault: tuple[str, str] | None, times: tuple[int, int], why: str) -> None:
        span = self._start(task, why=why, start_ns=times[0])
        if fault is not None:
            failed(span, *fault)
        span.end(times[1])


class Span:
    """An open span, and the task with the trace context of that span."""

    __slots__ = ("_span", "task")

    def __init__(self, task: Event, span: trace.Span | None) -> None:
        self.task = task
        self._span = span

    def answered(self, answer: Event) -> None:
        """Record the result of the task in the span."""
        if self._span is None:
            return
        if answer.kind == FAILED and answer.fault is not None and answer.fault.code not in DEFERRED:
            failed(self._span, answer.fault.cls or answer.fault.code, answer.fault.message)
        if answer.usage is not None and answer.usage.usd_micros:
            self._span.set_attribute(names.COST_USD, answer.usage.usd_micros / 1_000_000)
        if answer.usage is not None and answer.usage.tokens:
            self._span.set_attribute(names.TOKENS, answer.usage.tokens)
