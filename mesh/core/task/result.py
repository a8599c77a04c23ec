"""Convert a task's payload to arguments of the agent's function, and its result or error to one event for the inbox.

One task gives one record: several emitted events travel as a CloudEvents batch, so a result is never torn. The id of
the answer is that of the attempt, so a repeated attempt answers with the same id. A failure carries the task's input,
so the orchestrator need not keep the input of tasks that succeed.
"""

import math
import re
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from decimal import ROUND_CEILING, Decimal
from typing import Any

from pydantic import BaseModel, TypeAdapter, ValidationError

from mesh.core.errors import InvalidInput, MeshError, leaf_errors
from mesh.core.payload.json_encode import PayloadWriter, encode, mismatch
from mesh.core.protocol.event import (
    BATCH,
    FAILED,
    JSON,
    NO_USAGE,
    RETRY_AFTER_MS_MAX,
    SUCCEEDED,
    TASK_TIME,
    Event,
    Fault,
    Part,
    Usage,
    encode_batch,
)
from mesh.core.protocol.json_check import Flaw
from mesh.core.publishing.effect_records import cap_stack
from mesh.core.reason_codes import DEAD, REASONS
from mesh.core.redaction import mask, mask_end
from mesh.core.task.agent import Agent, Emit, Payload, Reject, RetryLater, location
from mesh.core.task.signature_check import allowed, emits_remedy
from mesh.core.topology.model import AgentSpec

BATCH_TYPE = "mesh.batch"
MESSAGE_CHARS_MAX = 1_000
GROUPED_CHARS_MAX = 200
"""Limit for the text of each exception in a group."""
GROUPED_CLASSES_MAX = 8
"""Limit of exception classes with which a group is named; above it, only its own class is."""
STACK_LINE_CHARS_MAX = 1_500
"""Limit for a message in a stack: a longer one would leave no frame in the part of the stack that is kept."""
FrameRule = Callable[[Iterable[tuple[str, int]]], str]
"""Chooses from the frames of a traceback, each a file and a line, the `file:line` to show; "" for none."""
TYPE_PATTERN = re.compile(r"[!-~]{1,128}")
"""Types that a header can carry. `decide` checks which of them an agent may emit."""


def arguments(agent: Agent, task: Event) -> dict[str, Any]:
    """Return validated keyword arguments for the agent's function. Raises InvalidInput (`schema`, `bad_batch`)."""
    alone = agent.alone
    taker = alone[task.type] if task.type in alone else alone.get("")
    if taker is not None and task.content_type != BATCH:
        name, adapter = taker
        try:
            return {name: adapter.validator.validate_json(task.data)}
        except ValidationError as error:  # not `from error`: its text quotes the payload
            raise _schema(agent, task.type, error) from None
    try:
        parts = task.parts()
    except ValueError as error:
        raise InvalidInput(
            f"the task's batch cannot be read: {error}",
            code="bad_batch",
            where=agent.where,
            expected="a JSON array of structured CloudEvents",
            remedy="The dead letter holds it as it came",
        ) from None
    given: dict[str, Any] = {}
    for part in parts:
        found = _taker(agent, part.type, given)
        if found is None:
            continue
        name, adapter = found
        given[name] = _read(agent, adapter, part.type, part.data)
    missing = [p for p in agent.parameters if p.required and p.name not in given]
    if missing or not given:
        wanted = missing[0] if missing else agent.parameters[0]
        raise InvalidInput(
            f"no event for parameter {wanted.name!r}",
            code="schema",
            where=agent.where,
            expected=" or ".join(wanted.types) or "an event",
            got=", ".join(p.type for p in parts) or "nothing",
            remedy="`mesh check` compares topics.yaml with the function",
        )
    return given


def parts_of(agent: Agent, spec: AgentSpec, value: Any) -> Sequence[Part]:
    """Convert the value that a function returned to events. Raises InvalidInput (`bad_result`, `undeclared_type`)."""
    declared = agent.classes.get(value.__class__)
    if declared is not None:  # most
        return (_declared_part(agent, spec, *declared, value),)
    if value is None:
        return ()
    if value.__class__ is tuple or isinstance(value, list):
        return [_part(agent, spec, item) for item in value if item is not None]
    return (_part(agent, spec, value),)


def decline_fault(agent: Agent, value: RetryLater | Reject) -> Fault:
    """Convert `RetryLater` or `Reject` to the fault of its task. Raises InvalidInput (`bad_result`)."""
    reason = value.reason if isinstance(value.reason, str) else repr(value.reason)
    if isinstance(value, Reject):
        return Fault("rejected", _sentence(reason) or "the agent rejected the task without a reason", retryable=False)
    seconds = value.seconds
    number = isinstance(seconds, int | float) and not isinstance(seconds, bool)
    if not number or not 0 <= seconds <= RETRY_AFTER_MS_MAX / 1000:
        raise InvalidInput(
            "RetryLater needs a time to wait",
            code="bad_result",
            where=agent.where,
            expected=f"seconds from 0 to {RETRY_AFTER_MS_MAX // 1000}",
            got=f"{seconds!r:.40}",
        )
    message = _sentence(reason) or f"the agent asked to be asked again in {seconds:g} s"
    return Fault("later", message, retry_after_ms=math.ceil(seconds * 1000))


def success_event(task: Event, parts: Sequence[Part], usage: Usage | None) -> Event:
    """Return the answer of a task that succeeded."""
    if len(parts) == 1:
        return _answer(task, SUCCEEDED, parts[0].type, JSON, parts[0].data, usage, None)
    source = f"/agents/{task.agent}"
    data = encode_batch(parts, source=source, event_id=task.id)
    return _answer(task, SUCCEEDED, BATCH_TYPE, BATCH, data, usage, None)


def cached_event(task: Event, type: str, content_type: str, data: bytes, usage: Usage) -> Event:
    """Return the answer of a task that succeeded before, from its cached result."""
    return _answer(task, SUCCEEDED, type, content_type, data, usage, None)


def failure_event(task: Event, fault: Fault, usage: Usage | None) -> Event:
    """Return the answer of a task that failed; its value is the task's input, unchanged."""
    answer = _answer(task, FAILED, task.type, task.content_type, task.data, usage, fault)
    if task.time:
        answer.extensions = (TASK_TIME, task.time)
    return answer


def fault_of(error: BaseException, frame: FrameRule = lambda frames: "") -> Fault:
    """Convert an exception to the fault of its task. Total.

    Errors of the mesh state whether they may be retried; other errors may be. The code is one that `core.reason_codes`
    gives to dead letters, or `exception`: then `cls` names the class. A group with one exception is described by that
    one; a group with several names each, with the `file:line` that `frame` chooses.
    """
    found = leaf_errors(error)
    codes = {_code(leaf) for leaf in found}
    code = codes.pop() if len(codes) == 1 else "exception"
    retryable = all(leaf.retriable for leaf in found if isinstance(leaf, MeshError))
    text = _text(found[0]) if len(found) == 1 else _texts(found, frame)
    cls = _class(found[0]) if len(found) == 1 else _class_of_group(error, found)
    return Fault(code, _sentence(text or cls), cls, retryable, cap_stack(mask_end(_stack(error))))


def _stack(error: BaseException) -> str:
    lines = traceback.format_exception(error)
    return "".join(
        line if len(line) <= STACK_LINE_CHARS_MAX else f"{_cut(line, STACK_LINE_CHARS_MAX)}\n" for line in lines
    )


def _code(error: BaseException) -> str:
    code = error.code if isinstance(error, MeshError) else "exception"
    return code if code in REASONS and DEAD in REASONS[code].seen_at else "exception"


def _class(error: BaseException) -> str:
    return f"{type(error).__module__}.{type(error).__qualname__}"


def _class_of_group(group: BaseException, found: Sequence[BaseException]) -> str:
    """Return the class of a group, with those of its exceptions in brackets: `retry.final` is compared with each."""
    classes = sorted({_class(leaf) for leaf in found})
    return f"{_class(group)}[{', '.join(classes)}]" if len(classes) <= GROUPED_CLASSES_MAX else _class(group)


def _text(error: BaseException) -> str:
    try:
        text = str(error)
    except BaseException as broken:  # noqa: BLE001 - whatever its own __str__ raises, even SystemExit, is not the fault
        text = f"{_class(error)}, whose text raised {type(broken).__name__}"
    if text and (isinstance(error, KeyError) or not isinstance(error, Exception)):
        text = f"{type(error).__name__}: {text}"  # `4` alone does not say that the agent called sys.exit(4)
    return text


def _texts(errors: Sequence[BaseException], frame: FrameRule) -> str:
    """Describe the exceptions of a group, each with class, text and `file:line`. Equal ones are counted."""
    counted = Counter(_describe(error, frame) for error in errors)
    texts = (text if count == 1 else f"{count} x {text}" for text, count in counted.items())
    return f"{len(errors)} exceptions: " + "; ".join(texts)


def _describe(error: BaseException, frame: FrameRule) -> str:
    name, text = type(error).__name__, mask(_text(error))
    text = text if text.startswith(name) else f"{name}: {text}" if text else name
    text = text if len(text) <= GROUPED_CHARS_MAX else f"{text[: GROUPED_CHARS_MAX - 1]}…"
    place = frame((f.f_code.co_filename, line) for f, line in traceback.walk_tb(error.__traceback__))
    return f"{text} ({place})" if place else text


def _sentence(text: str) -> str:
    """Mask and cut a text of an agent."""
    return _cut(text, MESSAGE_CHARS_MAX)


def _cut(text: str, chars_max: int) -> str:
    shown = mask(text)
    return shown if len(shown) <= chars_max else f"{shown[: chars_max - 1]}…"


def usage_of(usd: Any, tokens: Any) -> Usage | None:
    """Convert reported spending to whole millionths, rounded up; None if invalid (negative, NaN, not a number)."""
    if not isinstance(usd, Decimal) or not isinstance(tokens, int) or isinstance(tokens, bool):
        return None
    if not usd and not tokens:
        return NO_USAGE
    if not usd.is_finite() or not 0 <= usd < 10**9 or not 0 <= tokens < 10**15:
        return None
    return Usage(int((usd * 1_000_000).to_integral_value(ROUND_CEILING)), tokens)


def _taker(agent: Agent, type: str, given: dict[str, Any]) -> tuple[str, TypeAdapter[Any]] | None:
    """Return the parameter that takes an event of this type: one that names the type, else the first that takes any."""
    for key in (type, ""):
        for parameter in agent.parameters:
            if parameter.name not in given and key in parameter.adapters:
                return parameter.name, parameter.adapters[key]
    return None


def _read(agent: Agent, adapter: TypeAdapter[Any], type: str, data: bytes) -> Any:
    try:
        return adapter.validator.validate_json(data)
    except ValidationError as error:  # not `from error`: its text quotes the payload
        raise _schema(agent, type, error) from None


def _part(agent: Agent, spec: AgentSpec, value: Any) -> Part:
    declared = agent.classes.get(value.__class__)
    if declared is not None:
        return _declared_part(agent, spec, *declared, value)
    if isinstance(value, Payload) and value.event_type:
        return _undeclared_part(agent, spec, value.event_type, value)
    if isinstance(value, Emit) and isinstance(value.type, str) and TYPE_PATTERN.fullmatch(value.type):
        return _undeclared_part(agent, spec, value.type, value.payload)
    if len(spec.emits) == 1:
        (event_type,) = spec.emits
        untyped = agent.results.types.get("")
        if untyped is not None and not isinstance(value, Emit):
            return Part(event_type, _sendable(agent, event_type, untyped.checked(value)))
        if isinstance(value, BaseModel | dict):
            return _undeclared_part(agent, spec, event_type, value)
    what = f"Emit({value.type!r:.80})" if isinstance(value, Emit) else type(value).__name__
    raise InvalidInput(
        f"{spec.name} returned {what}, whose type of event is not known",
        code="bad_result",
        where=agent.where,
        expected="a Payload with a type, Emit(type, payload), a list of them, RetryLater or Reject alone, or None",
        remedy='Give the class its type: `class X(Payload, type="x.done")`',
    )


def _declared_part(agent: Agent, spec: AgentSpec, event_type: str, writer: PayloadWriter, value: Any) -> Part:
    if event_type not in spec.emits:
        raise _undeclared_error(agent, spec, event_type)
    data = writer.checked(value)
    return Part(event_type, data if isinstance(data, bytes) else _sendable(agent, event_type, data))


def _undeclared_part(agent: Agent, spec: AgentSpec, event_type: str, payload: Any) -> Part:
    """Write a payload of an undeclared class; it must fit the class that the function declares for its type."""
    if event_type not in spec.emits:
        raise _undeclared_error(agent, spec, event_type)
    declared = agent.results.classes.get(payload.__class__)
    if declared is not None and declared[0] == event_type:
        return _declared_part(agent, spec, *declared, payload)
    data = _sendable(agent, event_type, encode(payload))
    writer = agent.results.types.get(event_type)
    if writer is None:
        return Part(event_type, data)
    is_declared = any(
        isinstance(payload, cls) for cls, (type, _) in agent.results.classes.items() if type == event_type
    )
    flaw = writer.value_mismatch(payload) if is_declared else writer.json_mismatch(data)
    return Part(event_type, _sendable(agent, event_type, flaw or data))


def _undeclared_error(agent: Agent, spec: AgentSpec, event_type: str) -> InvalidInput:
    return InvalidInput(
        f"agent {spec.name!r} emitted {event_type!r}, which it does not declare",
        code="undeclared_type",
        where=agent.declared_at or f"topics.yaml:{spec.line}",
        expected=f"{allowed(spec)} (its `emits`)",
        got=f"{event_type!r} from {location(agent.function)}",
        remedy=emits_remedy(spec, event_type),
    )


def _sendable(agent: Agent, event_type: str, data: bytes | Flaw) -> bytes:
    if not isinstance(data, Flaw):
        return data
    raise InvalidInput(
        f"a returned {event_type} cannot be sent: {data.message}",
        code="bad_result",
        where=agent.where,
        expected="a payload that JSON carries exactly",
        remedy="Correct what the function returns, or the class that it declares",
    )


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
        "",
        "",
        None,
        task.traceparent,
        task.tracestate,
        usage,
        fault,
        task.origin,
    )


def _schema(agent: Agent, type: str, error: ValidationError) -> InvalidInput:
    return InvalidInput(
        f"{type} does not fit: {mismatch(error)}",
        code="schema",
        where=agent.where,
        got=f"{error.error_count()} mismatch{'es' if error.error_count() != 1 else ''}",
        remedy="Fix the sender or the payload's model, then send the dead letter again",
    )
