"""The breaker of an agent as its worker counts: how many calls it lets through."""

import asyncio
from typing import Any

import pytest

from mesh.core.protocol.event import NO_USAGE, SUCCEEDED, Event, Fault
from mesh.core.protocol.record import StoredRecord, TopicPartition
from mesh.core.run.circuit_breaker import LEFT_ALONE
from mesh.core.task.result import failure_event
from mesh.core.topology.model import AgentSpec, BreakerRule
from mesh.services.worker.assignment import PartitionAssignment, Work
from mesh.services.worker.attempt import Attempt
from mesh.services.worker.breaker_gate import BreakerGate
from mesh.services.worker.counts import Counts
from tests.builders import event

RULE = BreakerRule(3, 500)
BOOM, REFUSED = Fault("exception", "boom"), Fault("rejected", "no", retryable=False)


class Time:
    """A clock that stands still until it is moved."""

    at_ms = 1_000.0

    def monotonic_ms(self) -> float:
        return self.at_ms

    def uptime_ms(self) -> float:
        return self.monotonic_ms()

    def now_ms(self) -> int:
        return int(self.at_ms)

    async def sleep_ms(self, delay_ms: float) -> None:
        self.at_ms += delay_ms


def attempt() -> Attempt:
    partition = TopicPartition("mesh.tasks.a", 0)
    return Attempt(Work(StoredRecord(*partition, 0, 0, b"k", b"{}", []), PartitionAssignment(partition)), None)


class Agent:
    """An agent behind a gate. Calls that are told to wait end when the test says how."""

    def __init__(self, rule: BreakerRule | None = RULE) -> None:
        self.time, self.counts = Time(), Counts()
        self.gate = BreakerGate(AgentSpec("a", "x:y", ("ask",), (), breaker=rule), self.time, self.counts)
        self.calls = 0
        self.waiting: list[asyncio.Future[Fault | None]] = []
        self.waits = False
        self.fault: Fault | None = BOOM
        self._answer = self.gate.around(self._called)

    async def _called(self, task: Event, attempt: Attempt) -> Event | None:
        self.calls += 1
        fault = self.fault
        if self.waits:
            self.waiting.append(asyncio.get_running_loop().create_future())
            fault = await self.waiting[-1]
        return event(SUCCEEDED, agent="a") if fault is None else failure_event(task, fault, NO_USAGE)

    async def ask(self) -> Any:
        """The code of its fault, None when it went well."""
        answer = await self._answer(event("task", agent="a", task_id="t"), attempt())
        assert answer is not None
        return None if answer.fault is None else answer.fault.code


async def turns() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_after_so_many_failures_in_a_row_nothing_is_called_until_the_time_is_over() -> None:
    agent = Agent()
    assert [await agent.ask() for _ in range(6)] == ["exception"] * 3 + [LEFT_ALONE] * 3
    assert agent.calls == 3
    assert agent.counts.left_alone == 3
    agent.time.at_ms += 499
    answer = await agent._answer(event("task", agent="a", task_id="t"), attempt())
    assert answer is not None
    assert answer.fault is not None
    assert answer.fault.retry_after_ms == 1
    assert answer.usage == NO_USAGE
    agent.time.at_ms += 1
    agent.fault = None
    assert [await agent.ask() for _ in range(4)] == [None] * 4


async def test_a_success_and_what_says_nothing_of_its_health_do_not_count() -> None:
    agent = Agent()
    for fault in (BOOM, BOOM, None, BOOM, BOOM, REFUSED, REFUSED):
        agent.fault = fault
        assert await agent.ask() != LEFT_ALONE
    agent.fault = BOOM
    assert [await agent.ask() for _ in range(2)] == ["exception", LEFT_ALONE]


@pytest.mark.parametrize(("verdict", "others"), [(None, [None, None]), (BOOM, [LEFT_ALONE, LEFT_ALONE])])
async def test_then_one_call_tries_the_agent_and_others_wait_for_its_answer(
    verdict: Fault | None, others: list[str | None]
) -> None:
    agent = Agent()
    for _ in range(3):
        await agent.ask()
    agent.time.at_ms += 500
    agent.waits = True
    asked = [asyncio.ensure_future(agent.ask()) for _ in range(3)]
    await turns()
    assert agent.calls == 4
    agent.waits, agent.fault = False, None
    agent.waiting[0].set_result(verdict)
    assert (await asyncio.gather(*asked))[1:] == others


async def test_a_trial_that_is_interrupted_is_followed_by_another_one() -> None:
    agent = Agent()
    for _ in range(3):
        await agent.ask()
    agent.time.at_ms += 500
    agent.waits = True
    first, second = (asyncio.ensure_future(agent.ask()) for _ in range(2))
    await turns()
    first.cancel()
    await turns()
    assert agent.calls == 5
    agent.waiting[1].set_result(None)
    assert await second is None


async def test_a_call_that_was_abandoned_counts_when_its_answer_was_given_for_it() -> None:
    agent, slow = Agent(BreakerRule(1, 500)), attempt()
    agent.gate.record(slow, None)
    assert await agent.ask() == "exception"
    agent = Agent(BreakerRule(1, 500))
    agent.gate.record(slow, failure_event(event("task", agent="a", task_id="t"), Fault("timed_out", "x"), NO_USAGE))
    assert await agent.ask() == LEFT_ALONE


async def test_what_another_worker_found_out_holds_here_too() -> None:
    agent = Agent()
    agent.fault = None
    agent.gate.follow(opened=True)
    assert await agent.ask() == LEFT_ALONE
    agent.gate.follow(opened=True)
    agent.gate.follow(opened=False)
    assert await agent.ask() is None


async def test_one_that_was_opened_here_stays_open_until_its_own_word_has_come_round() -> None:
    agent = Agent(BreakerRule(1, 500))
    await agent.ask()
    agent.gate.follow(opened=False)
    assert await agent.ask() == LEFT_ALONE
    agent.gate.follow(opened=True)
    agent.gate.follow(opened=False)
    assert await agent.ask() == "exception"


async def test_an_agent_without_a_breaker_is_called_as_if_there_was_no_gate() -> None:
    agent = Agent(None)
    agent.gate.follow(opened=True)
    assert agent.gate.around(agent._called) == agent._called
    assert [await agent.ask() for _ in range(9)] == ["exception"] * 9
