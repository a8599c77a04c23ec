"""One call of an agent's function, without a worker around it."""

from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest

from mesh import Context, Payload
from mesh.adapters.clock import SystemClock
from mesh.adapters.sqlite import SqliteBoard
from mesh.core.protocol.event import TASK, Event
from mesh.core.task.agent import Reject, RetryLater, describe
from mesh.core.task.fault_injection import ERROR, SLOW, Broken, InjectedFault
from mesh.services.worker.invocation import Function, context_of, crash_loop, failed
from tests.services.worker.counting_agents import TOPOLOGY, Answer, Ask

TASK_OF_SIX = Event("t:1", "/m", "ask", TASK, "r", b'{"n":6}', agent="echo", task_id="t", depth=2, path=("a", "echo"))


class Facts(Payload, type="facts"):
    text: str


async def echo(ask: Ask, ctx: Context) -> Answer | RetryLater | Reject:
    """Says what it was told by its number."""
    ctx.spend(usd="0.5", tokens=7)
    if ask.n == 1:
        return RetryLater(2)
    if ask.n == 2:
        return Reject("no")
    return Answer(n=ask.n * ctx.depth)


async def answered(n: int, broken: InjectedFault | None, folder: Path) -> Event:
    task = Event(*("t:1", "/m", "ask", TASK, "r", b'{"n":%d}' % n), agent="echo", task_id="t", depth=2)
    context = context_of(task, SqliteBoard(folder / "board.db"), None)
    return await Function(TOPOLOGY.agents["echo"], describe(echo), SystemClock(), None).answer(task, context, broken)


@pytest.mark.parametrize(
    ("n", "kind", "code", "data"),
    [
        (6, "succeeded", None, b'{"n":12}'),
        (1, "failed", "later", b'{"n":1}'),
        (2, "failed", "rejected", b'{"n":2}'),
    ],
)
async def test_what_the_function_says_becomes_its_answer(
    n: int, kind: str, code: str | None, data: bytes, tmp_path: Path
) -> None:
    answer = await answered(n, None, tmp_path)
    assert (answer.kind, answer.data, answer.fault and answer.fault.code) == (kind, data, code)
    assert answer.usage is not None
    assert (answer.usage.usd_micros, answer.usage.tokens) == (500_000, 7)


async def test_what_is_broken_on_purpose_happens_before_the_call(tmp_path: Path) -> None:
    with pytest.raises(Broken, match="no such table"):
        await answered(6, InjectedFault(ERROR, "no such table"), tmp_path)
    assert (await answered(6, InjectedFault(SLOW, delay_ms=1), tmp_path)).kind == "succeeded"


async def test_what_a_task_spent_before_it_failed_is_charged_and_what_is_no_amount_is_not_guessed(
    tmp_path: Path,
) -> None:
    context = context_of(TASK_OF_SIX, SqliteBoard(tmp_path / "board.db"), None)
    context.spend(usd=Decimal("0.25"))
    fault = crash_loop(TASK_OF_SIX, 3).fault
    assert fault is not None
    usage = failed(TASK_OF_SIX, context, fault).usage
    assert usage is not None
    assert usage.usd_micros == 250_000
    assert failed(TASK_OF_SIX, context, fault._replace(code="bad_usage")).usage is None


def test_a_killer_is_given_up_for_good_with_its_input_and_its_reservation_is_charged() -> None:
    answer = crash_loop(TASK_OF_SIX, 3)
    assert answer.fault is not None
    assert (answer.fault.code, answer.fault.retryable) == ("crash_loop", False)
    assert "3 processes of echo died" in answer.fault.message
    assert (answer.data, answer.usage) == (b'{"n":6}', None)


@pytest.mark.parametrize(
    ("time", "now_ms"), [("2026-11-30T12:00:00.123Z", 1_796_040_000_123), ("", 77), ("yesterday", 77)]
)
async def test_the_time_of_a_task_is_that_which_its_attempts_have_in_common(
    time: str, now_ms: int, tmp_path: Path
) -> None:
    task = replace(TASK_OF_SIX, time=time, at_ms=77)
    context = context_of(task, SqliteBoard(tmp_path / "board.db"), None, sandbox=True)
    assert (context.now_ms, context.sandbox) == (now_ms, True)
