"""After an agent answered: its value or its error → one event for the inbox. And before: the payload → its arguments.

One task, one record: several emitted events travel as a CloudEvents batch, so that a result is never torn. The id of
the answer is that of the attempt, so a repeated attempt answers with the same id. A failure carries the task's input,
so that the orchestrator need not hold the input of tasks that succeed.
"""

import traceback
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import orjson
from pydantic import BaseModel, ValidationError

from mesh.core.agent import Agent, Emit, Payload
from mesh.core.errors import InvalidInput, MeshError
from mesh.core.event import BATCH, FAILED, JSON, SUCCEEDED, Event, Fault, Part, Usage, batch
from mesh.core.mask import masked
from mesh.core.records import capped
from mesh.core.topology import AgentSpec

BATCH_TYPE = "mesh.batch"
MESSAGE_CHARS_MAX = 1_000


def arguments(agent: Agent, task: Event) -> dict[str, Any]:
    """Validated keyword arguments for the agent's function. Raises InvalidInput (`schema`) naming the field."""
    given: dict[str, Any] = {}
    for part in task.parts():
        for parameter in agent.parameters:
            adapter = parameter.adapters.get(part.type) or parameter.adapters.get("")
            if adapter is None or parameter.name in given:
                continue
            try:
                given[parameter.name] = adapter.validate_json(part.data)
            except ValidationError as error:
                raise _schema(agent, part.type, error) from error
            break
    missing = [p.name for p in agent.parameters if p.name not in given]
    if missing:
        raise InvalidInput(
            f"no event for parameter {missing[0]!r}",
            code="schema",
            where=agent.where,
            expected=" or ".join(agent.hears) or "an event",
            got=", ".join(p.type for p in task.parts()) or "nothing",
            remedy="`mesh check` compares topics.yaml with the function",
        )
    return given


def parts_of(agent: Agent, spec: AgentSpec, value: Any) -> Sequence[Part]:
    """What a function returned, as events. Raises InvalidInput (`bad_result`)."""
    if value is None:
        return ()
    if isinstance(value, Sequence) and not isinstance(value, str | bytes | Emit):
        return [part for item in value for part in parts_of(agent, spec, item)]
    if isinstance(value, Emit):
        return (Part(value.type, _json(agent, value.payload)),)
    if isinstance(value, Payload) and value.event_type:
        return (Part(value.event_type, _json(agent, value)),)
    if len(spec.emits) == 1 and isinstance(value, BaseModel | dict):
        return (Part(spec.emits[0], _json(agent, value)),)
    raise InvalidInput(
        f"{spec.name} returned {type(value).__name__}, whose type of event is not known",
        code="bad_result",
        where=agent.where,
        expected="a Payload with a type, a list of them, Emit(type, payload) or None",
        remedy='Give the class its type: `class X(Payload, type="x.done")`',
    )


def succeeded(task: Event, parts: Sequence[Part], usage: Usage | None) -> Event:
    """The answer of a task that went well."""
    if len(parts) == 1:
        return _answer(task, SUCCEEDED, parts[0].type, JSON, parts[0].data, usage, None)
    source = f"/agents/{task.agent}"
    data = batch(parts, source=source, event_id=task.id)
    return _answer(task, SUCCEEDED, BATCH_TYPE, BATCH, data, usage, None)


def failed(task: Event, fault: Fault, usage: Usage | None) -> Event:
    """The answer of a task that did not; its value is the task's input, untouched."""
    return _answer(task, FAILED, task.type, task.content_type, task.data, usage, fault)


def fault_of(error: BaseException) -> Fault:
    """Why a task failed. Errors of the mesh say themselves whether they may be retried; foreign ones may be."""
    code = error.code if isinstance(error, MeshError) else "exception"
    retryable = error.retriable if isinstance(error, MeshError) else True
    cls = f"{type(error).__module__}.{type(error).__qualname__}"
    stack = "".join(traceback.format_exception(error))
    return Fault(code, masked(str(error) or cls)[:MESSAGE_CHARS_MAX], cls, retryable, capped(masked(stack)))


def usage_of(usd: Any, tokens: Any) -> Usage | None:
    """Reported spending as exact amounts; None when it is no usage (negative, NaN, not a number)."""
    if not isinstance(usd, Decimal) or not usd.is_finite() or usd < 0 or usd >= 10**9:
        return None
    if not isinstance(tokens, int) or isinstance(tokens, bool) or not 0 <= tokens < 10**15:
        return None
    return Usage(int((usd * 1_000_000).to_integral_value()), tokens)


def _answer(
    task: Event, kind: str, type: str, content_type: str, data: bytes, usage: Usage | None, fault: Fault | None
) -> Event:
    return Event(
        f"{task.id}:{kind}",
        f"/agents/{task.agent}",
        type,
        kind,
        task.run_id,
        data,
        task.at_ms,
        task.id,
        task.agent,
        task.task_id,
        task.depth,
        task.path,
        task.attempt,
        content_type,
        traceparent=task.traceparent,
        tracestate=task.tracestate,
        usage=usage,
        fault=fault,
        origin=task.origin,
    )


def _json(agent: Agent, payload: Any) -> bytes:
    try:
        if isinstance(payload, BaseModel):
            return payload.__pydantic_serializer__.to_json(payload)
        return orjson.dumps(payload)
    except (TypeError, ValueError) as error:
        raise InvalidInput(
            f"a returned payload is not JSON: {error}",
            code="bad_result",
            where=agent.where,
            expected="JSON-able values",
        ) from error


def _schema(agent: Agent, type: str, error: ValidationError) -> InvalidInput:
    first = error.errors(include_url=False, include_input=False)[0]
    path = ".".join(str(step) for step in first["loc"]) or "(document)"
    return InvalidInput(
        f"{type} does not fit: {path}: {first['msg']}",
        code="schema",
        where=agent.where,
        got=f"{error.error_count()} mismatch{'es' if error.error_count() != 1 else ''}",
        remedy="Mend the sender or the payload's model, then send the dead letter again",
    )
