"""Why a task failed and what it used, as far as others may read it."""

import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.core.errors import BoardUnavailable, Conflict, InvalidInput, MeshError, WaitTimeout
from mesh.core.protocol.event import RETRY_AFTER_MS_MAX, STACK_BYTES_MAX, Usage
from mesh.core.task.agent import Reject, RetryLater, describe
from mesh.core.task.result import (
    GROUPED_CHARS_MAX,
    GROUPED_CLASSES_MAX,
    MESSAGE_CHARS_MAX,
    decline_fault,
    failure_event,
    fault_of,
    parts_of,
    success_event,
    usage_of,
)
from mesh.core.topology.model import AgentSpec
from mesh.runtime.execution.agent_modules import user_frame
from tests.core.samples import again, task


def agent(ask: dict[str, Any]) -> None: ...


AGENT = describe(agent)


def raised(error: BaseException) -> BaseException:
    try:
        raise error
    except BaseException as caught:  # noqa: BLE001 - the test hands it on
        return caught


class Homemade(MeshError):
    """An agent's own, with a code that is in no table."""

    code = "homemade"


@pytest.mark.parametrize(
    ("error", "code", "retryable"),
    [
        (ValueError("no"), "exception", True),
        (TimeoutError(), "exception", True),
        (InvalidInput("no", code="schema"), "schema", False),
        (BoardUnavailable("gone"), "board_unavailable", True),
        (Conflict("k", expected="1", current="2"), "stale_version", True),
        (BaseException("base"), "exception", True),
        (Homemade("mine"), "exception", False),
        (WaitTimeout("it goes on"), "exception", WaitTimeout.retriable),
    ],
)
def test_an_error_of_the_mesh_says_itself_whether_it_may_be_tried_again(
    error: BaseException, code: str, retryable: bool
) -> None:
    fault = fault_of(raised(error))
    assert (fault.code, fault.retryable) == (code, retryable)
    assert fault.cls.endswith(type(error).__name__)
    assert "Traceback" in fault.stack


def line_of(error: BaseException) -> str:
    assert error.__traceback__ is not None
    return f"{__file__}:{error.__traceback__.tb_lineno}"


def test_one_exception_in_a_group_stands_for_the_group() -> None:
    inner = raised(BoardUnavailable("the board is gone"))
    fault = fault_of(
        raised(BaseExceptionGroup("unhandled errors in a TaskGroup", [BaseExceptionGroup("inner", [inner])]))
    )
    alone = fault_of(inner)
    assert fault[:4] == alone[:4]
    assert fault.code == "board_unavailable"
    assert "ExceptionGroup: inner" in fault.stack
    refused = fault_of(raised(BaseExceptionGroup("g", [raised(InvalidInput("no", code="schema"))])))
    assert (refused.code, refused.retryable) == ("schema", False)


def test_of_several_exceptions_in_a_group_each_is_reported_with_its_place() -> None:
    first, second = raised(ValueError("no shelf, password=hunter2")), raised(KeyError("sku"))
    third = raised(InvalidInput("x" * 1_000, code="schema"))
    fault = fault_of(
        raised(BaseExceptionGroup("tasks", [first, BaseExceptionGroup("more", [second, third])])), user_frame
    )
    assert fault.message == (
        f"3 exceptions: ValueError: no shelf, password=*** ({line_of(first)}); KeyError: 'sku' ({line_of(second)}); "
        f"InvalidInput: {'x' * (GROUPED_CHARS_MAX - 15)}… ({line_of(third)})"
    )
    assert (fault.code, fault.cls, fault.retryable) == (
        "exception",
        f"builtins.ExceptionGroup[builtins.KeyError, builtins.ValueError, {InvalidInput.__module__}.InvalidInput]",
        False,
    )
    both = fault_of(BaseExceptionGroup("g", [BoardUnavailable("a"), BoardUnavailable("b")]))
    assert (both.code, both.retryable) == ("board_unavailable", True)
    assert both.message == "2 exceptions: BoardUnavailable: a; BoardUnavailable: b"


def test_the_place_of_an_exception_in_a_group_is_outside_of_the_mesh() -> None:
    with pytest.raises(InvalidInput) as caught:
        decline_fault(AGENT, RetryLater(-1))
    message = fault_of(BaseExceptionGroup("g", [caught.value, ValueError("x")]), user_frame).message
    assert f"({__file__}:" in message
    assert "result.py" not in message


def test_an_error_without_a_text_is_named_by_its_class() -> None:
    assert fault_of(raised(KeyError())).message == "builtins.KeyError"


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (SystemExit(4), "SystemExit: 4"),
        (KeyError("sku"), "KeyError: 'sku'"),
        (KeyboardInterrupt(), "builtins.KeyboardInterrupt"),
        (ValueError("no stock"), "no stock"),
    ],
)
def test_a_text_that_says_nothing_by_itself_comes_with_its_class(error: BaseException, message: str) -> None:
    assert fault_of(raised(error)).message == message


def test_secrets_are_masked_in_message_and_stack() -> None:
    fault = fault_of(raised(RuntimeError("POST https://u:hunter2@h failed, api_key=k123456")))
    for text in (fault.message, fault.stack):
        assert "hunter2" not in text
        assert "k123456" not in text
        assert "***" in text


def test_a_long_message_and_a_long_stack_are_cut() -> None:
    def deep(n: int) -> None:
        if n:
            deep_too(n - 1)
        raise ValueError("x" * 1_000_000)

    def deep_too(n: int) -> None:
        deep(n)

    try:
        deep(100)
    except ValueError as error:
        fault = fault_of(error)
    assert len(fault.message) == MESSAGE_CHARS_MAX
    assert fault.message.endswith("x…")
    assert len(fault.stack.encode()) <= STACK_BYTES_MAX
    assert fault.stack.startswith("[cut: ")


def test_a_message_of_just_the_limit_is_not_cut() -> None:
    assert MESSAGE_CHARS_MAX == 1_000
    assert fault_of(raised(ValueError("x" * 1_000))).message == "x" * 1_000


@pytest.mark.parametrize("error", [RuntimeError("no text"), SystemExit(0), KeyboardInterrupt()])
def test_an_exception_whose_text_raises_is_still_a_fault(error: BaseException) -> None:
    class Broken(Exception):
        def __str__(self) -> str:
            raise error

    fault = fault_of(raised(Broken()))
    assert fault.message.endswith(f"Broken, whose text raised {type(error).__name__}")
    assert fault.code == "exception"


def test_a_fault_with_any_text_can_be_written() -> None:
    fault = fault_of(raised(ValueError("lone \udcff")))
    assert again(failure_event(task(), fault, None)).fault is not None


# ------------------------------------------------------------------------------------------------------------- usage


@pytest.mark.parametrize(
    ("usd", "tokens", "usage"),
    [
        (Decimal(0), 0, Usage(0, 0)),
        (Decimal("0.5"), 12, Usage(500_000, 12)),
        (Decimal("0.000001"), 0, Usage(1, 0)),
        (Decimal("0.0000001"), 0, Usage(1, 0)),
        (Decimal("1.0000001"), 0, Usage(1_000_001, 0)),
        (Decimal(10**9 - 1), 10**15 - 1, Usage((10**9 - 1) * 10**6, 10**15 - 1)),
    ],
)
def test_usage_is_counted_in_whole_millionths_and_never_undercharged(usd: Decimal, tokens: int, usage: Usage) -> None:
    assert usage_of(usd, tokens) == usage


@pytest.mark.parametrize(
    ("usd", "tokens"),
    [
        (Decimal("-0.1"), 0),
        (Decimal("NaN"), 0),
        (Decimal("sNaN"), 0),
        (Decimal("Infinity"), 0),
        (Decimal(10**9), 0),
        (0.5, 0),
        ("0.5", 0),
        (None, 0),
        (Decimal(0), -1),
        (Decimal(0), 10**15),
        (Decimal(0), 1.0),
        (Decimal(0), "1"),
        (Decimal(0), True),
        (Decimal(0), None),
    ],
)
def test_an_invalid_usage_is_distinguished_from_none_at_all(usd: Any, tokens: Any) -> None:
    assert usage_of(usd, tokens) is None


@given(st.decimals(allow_nan=True, allow_infinity=True) | st.floats() | st.text(max_size=3), st.integers())
def test_any_report_is_a_usage_that_the_codec_carries_or_none(usd: Any, tokens: int) -> None:
    usage = usage_of(usd, tokens)
    assert again(success_event(task(), [], usage)).usage == usage


# ------------------------------------------------------------------------------------------ RetryLater and Reject


@pytest.mark.parametrize(
    ("seconds", "after_ms"), [(0, 0), (1.5, 1_500), (0.0001, 1), (366 * 86_400, RETRY_AFTER_MS_MAX)]
)
def test_later_says_when_to_ask_again_and_may_be_tried_again(seconds: float, after_ms: int) -> None:
    fault = decline_fault(AGENT, RetryLater(seconds, "rate limited"))
    assert (fault.code, fault.retryable, fault.retry_after_ms, fault.message) == (
        "later",
        True,
        after_ms,
        "rate limited",
    )
    assert again(failure_event(task(), fault, None)).fault == fault


def test_later_without_a_reason_says_how_long() -> None:
    assert decline_fault(AGENT, RetryLater(30)).message == "the agent asked to be asked again in 30 s"


@pytest.mark.parametrize("seconds", [-1, float("nan"), float("inf"), True, "5", None, 366 * 86_400 + 1, 10**400])
def test_later_without_a_usable_time_is_a_bad_result(seconds: Any) -> None:
    with pytest.raises(InvalidInput, match="seconds from 0 to") as caught:
        decline_fault(AGENT, RetryLater(seconds))
    assert caught.value.code == "bad_result"


def test_reject_is_final_and_its_reason_is_masked_and_cut() -> None:
    fault = decline_fault(AGENT, Reject("password=hunter2 " + "x" * 5_000))
    assert (fault.code, fault.retryable, fault.retry_after_ms, fault.stack) == ("rejected", False, 0, "")
    assert "hunter2" not in fault.message
    assert len(fault.message) == MESSAGE_CHARS_MAX
    assert decline_fault(AGENT, Reject("")).message == "the agent rejected the task without a reason"
    assert decline_fault(AGENT, Reject(5)).message == "5"  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [[RetryLater(1)], [Reject("no"), {}]])
def test_in_a_list_later_and_reject_are_no_events(value: Any) -> None:
    with pytest.raises(InvalidInput, match="RetryLater or Reject alone"):
        parts_of(AGENT, AgentSpec("a", "x:y", ("ask",), ("answer",)), value)


def test_equal_exceptions_in_a_group_are_counted() -> None:
    group = ExceptionGroup("g", [*[ValueError("a")] * 500, KeyError("b")])
    assert fault_of(group).message == "501 exceptions: 500 x ValueError: a; KeyError: 'b'"


def test_a_group_names_the_classes_in_it_but_not_too_many() -> None:
    assert fault_of(ExceptionGroup("g", [ValueError("a"), ValueError("b")])).cls == (
        "builtins.ExceptionGroup[builtins.ValueError]"
    )
    many = [type(f"E{n}", (Exception,), {})() for n in range(GROUPED_CLASSES_MAX + 1)]
    assert fault_of(ExceptionGroup("g", many)).cls == "builtins.ExceptionGroup"


def test_the_place_of_an_exception_in_a_group_is_outside_of_libraries() -> None:
    with pytest.raises(ValueError, match="Expecting") as caught:
        json.loads("{")
    assert f"({__file__}:" in fault_of(ExceptionGroup("g", [caught.value, ValueError("x")]), user_frame).message


@pytest.mark.parametrize("sign", ["y", "\N{EURO SIGN}", "\N{GRINNING FACE}", "y\n", "password=hunter2 "])
def test_a_long_message_leaves_the_frames_in_the_stack(sign: str) -> None:
    fault = fault_of(raised(ValueError(sign * 10_000)))
    assert f'File "{__file__}", line ' in fault.stack
    assert "hunter2" not in fault.stack
