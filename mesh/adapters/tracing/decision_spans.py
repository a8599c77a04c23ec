"""Spans of the orchestrator: `decide <inbox>` for events, and `send <dead>` for each dead letter.

Decisions are many and short, so a share of them is traced (`trace_decisions`, of whole runs; none by default). Always
exported are the decision by which a run ends badly or late, and the sending of a dead letter, to which the span of its
redrive links.
"""

from collections.abc import Callable, Sequence
from time import time_ns
from typing import Final

from opentelemetry.trace import Span

from mesh.adapters.tracing import span_names as names
from mesh.adapters.tracing.span_factory import SpanFactory, failed
from mesh.adapters.tracing.span_ids import trace_id_of
from mesh.core.protocol.codec import read_event
from mesh.core.protocol.event import Event
from mesh.core.protocol.record import Record
from mesh.core.run.effects import DeadLetter, Effect, Finish
from mesh.core.run.state import COMPLETED, Run

_SHARES: Final = 1 << 32


class DecisionSpans:
    """Spans of decisions about the records of `inbox`. `share`: from 0 to 1, of the runs in the sample."""

    def __init__(self, factory: SpanFactory, *, inbox: str, dead: str, group: str, share: float = 0.0) -> None:
        self._factory, self._inbox, self._dead, self._group = factory, inbox, dead, group
        self._limit = round(share * _SHARES) if factory.is_active else 0

    def now_ns(self) -> int:
        """Return the time at which a decision begins; 0 where no spans are made."""
        return time_ns() if self._factory.is_active else 0

    def decided(
        self, record: Record, effects: Sequence[Effect], began_ns: int, run_of: Callable[[str], Run | None]
    ) -> None:
        """Make the spans of a decision that began at `now_ns`. `run_of`: returns the state of an open run."""
        if not began_ns:
            return
        ended = None
        for effect in effects:
            if isinstance(effect, Finish):
                ended = effect
            elif isinstance(effect, DeadLetter) and effect.run_id:
                self._died(record, effect, run_of(effect.run_id) or _run_that_ends(effects))
        if ended is not None and self._finished(record, ended, began_ns):
            return
        if self._limit:
            event = _event_in(record, None)
            if event is not None and self._is_chosen(event):
                self._decide(record, event, len(effects), began_ns).end(time_ns())

    def _is_chosen(self, event: Event) -> bool:
        trace_id = event.traceparent[3:35] or trace_id_of(event.run_id)
        return int(trace_id[-8:], 16) < self._limit and self._factory.is_sampled(event)

    def _finished(self, record: Record, finish: Finish, began_ns: int) -> bool:
        """Export what was kept of a run if it ended badly or late, else forget that. Return whether it did."""
        run, ring = finish.run, self._factory.kept
        slow = ring is not None and ring.is_slow(run.opened_ms * 1_000_000, run.ended_ms * 1_000_000)
        if run.ending == COMPLETED and not slow:
            if ring is not None:
                ring.forget(run.id)
            return False
        why = "slow" if run.ending == COMPLETED else "failed"
        event = _event_in(record, run)
        if event is not None:
            span = self._decide(record, event, 1, began_ns, why=why)
            span.set_attribute(names.ENDING, run.ending)
            if run.ending != COMPLETED:
                codes = [*(failure.code for failure in run.failures), *(refusal.code for refusal in run.refusals)]
                failed(span, codes[0] if codes else run.ending, f"the run ended {run.ending}")
            span.end()
        if ring is not None:
            ring.export(run.id, why)
        return True

    def _died(self, record: Record, letter: DeadLetter, run: Run | None) -> None:
        """Make the span of a dead letter of a run, and export what was kept of that."""
        event = _event_in(record, run)
        if event is not None:
            attributes = {
                names.OPERATION_NAME: names.SEND,
                names.OPERATION_TYPE: names.SEND,
                names.DESTINATION: self._dead,
                names.MESSAGE_ID: letter.id,
                names.CONVERSATION_ID: letter.run_id,
            }
            span = self._factory.begin(event, attributes, of=letter.id, why="refused")
            failed(span, letter.cls or letter.code, letter.message)
            span.end()
        if self._factory.kept is not None:
            self._factory.kept.export(letter.run_id, "refused")

    def _decide(self, record: Record, event: Event, effects: int, start_ns: int, *, why: str = "") -> Span:
        attributes: dict[str, str | int] = {
            names.OPERATION_NAME: names.DECIDE,
            names.OPERATION_TYPE: names.PROCESS,
            names.DESTINATION: self._inbox,
            names.PARTITION: str(record.partition),
            names.KAFKA_OFFSET if self._factory.system == "kafka" else names.OFFSET: record.offset,
            names.GROUP: self._group,
            names.MESSAGE_ID: event.id,
            names.CONVERSATION_ID: event.run_id,
            names.EVENT_TYPE: event.type,
            names.EFFECTS: effects,
        }
        return self._factory.begin(event, attributes, of=f"{event.id}:{names.DECIDE}", why=why, at=start_ns)


def _event_in(record: Record, run: Run | None) -> Event | None:
    """Return the event in a record, with the trace of its run if it came without one, as timers and commands do."""
    event = read_event(record)
    if not isinstance(event, Event):
        return None
    if run is not None and run.traceparent and not event.traceparent:
        event.traceparent, event.tracestate = run.traceparent, run.tracestate
    return event


def _run_that_ends(effects: Sequence[Effect]) -> Run | None:
    return next((effect.run for effect in effects if isinstance(effect, Finish)), None)
