"""Agents that were broken on purpose, and mended."""

import time
from dataclasses import replace

import pytest

from mesh.adapters.ports import Board, Log
from mesh.app.wiring import topic_specs
from mesh.core.run.control import MENDED, Switch, control_record
from mesh.core.task.fault_injection import ERROR, HANG, SLOW, InjectedFault, fault_switch
from tests.services.conftest import append, working
from tests.services.worker.counting_agents import TOPOLOGY, Answer, Ask, answers, task, topology, until, worker

ALLOWED = replace(topology(timeout="300ms"), chaos=True)


async def echo(ask: Ask) -> Answer:
    return Answer(n=ask.n)


def switch(fault: InjectedFault, for_s: float = 60) -> Switch:
    return fault_switch("echo", fault, by="ann@desk", until_ms=round((time.time() + for_s) * 1_000))


async def turn(log: Log, to: Switch) -> None:
    await log.create_topics(topic_specs(ALLOWED))
    await append(log, control_record(to, ALLOWED, event_id="c1"))


@pytest.mark.parametrize(
    ("fault", "code", "message"),
    [
        (InjectedFault(ERROR, "no such table"), "exception", "no such table (broken on purpose)"),
        (InjectedFault(HANG), "timed_out", "echo took longer than 300 ms and was cancelled"),
        (InjectedFault(SLOW, delay_ms=60_000), "timed_out", "echo took longer than 300 ms and was cancelled"),
    ],
)
async def test_a_broken_agent_fails_in_its_way(
    log: Log, board: Board, fault: InjectedFault, code: str, message: str
) -> None:
    await turn(log, switch(fault))
    async with working(log, ALLOWED, worker(log, board, echo, ALLOWED).run):
        await append(log, task(1))
        (answer,) = await answers(log, 1)
    assert answer.fault is not None
    assert (answer.fault.code, answer.fault.message, answer.fault.retryable) == (code, message, True)
    if fault.kind == ERROR:
        assert answer.fault.cls == "mesh.core.chaos.Broken"


async def test_one_that_is_slow_takes_so_much_longer(log: Log, board: Board) -> None:
    await turn(log, switch(InjectedFault(SLOW, delay_ms=120)))
    async with working(log, ALLOWED, worker(log, board, echo, ALLOWED).run):
        began_s = time.monotonic()
        await append(log, task(1))
        (answer,) = await answers(log, 1)
    assert answer.kind == "succeeded"
    assert time.monotonic() - began_s >= 0.12


async def test_a_blocking_function_is_broken_just_so(log: Log, board: Board) -> None:
    def blocking(ask: Ask) -> Answer:
        return Answer(n=ask.n)

    await turn(log, switch(InjectedFault(ERROR, "no such table")))
    async with working(log, ALLOWED, worker(log, board, blocking, ALLOWED).run):
        await append(log, task(1))
        (answer,) = await answers(log, 1)
    assert answer.kind == "failed"


async def test_a_fault_ends_when_it_is_taken_back_and_by_itself(log: Log, board: Board) -> None:
    fault = switch(InjectedFault(ERROR, "no such table"))
    await turn(log, fault)
    crew = worker(log, board, echo, ALLOWED)
    async with working(log, ALLOWED, crew.run):
        await until(lambda: crew.consumers["echo"].caller.injected_fault() is not None)
        await append(log, control_record(fault._replace(state=MENDED), ALLOWED, event_id="c2"))
        await until(lambda: crew.consumers["echo"].caller.injected_fault() is None)
        await append(log, control_record(switch(InjectedFault(HANG), for_s=0.05), ALLOWED, event_id="c3"))
        await append(log, control_record(switch(InjectedFault(HANG), for_s=-1), ALLOWED, event_id="c4"))
        await until(lambda: crew.consumers["echo"].caller.injected_fault() is None)
        await append(log, task(1))
        (answer,) = await answers(log, 1)
    assert answer.kind == "succeeded"


async def test_where_the_topology_does_not_allow_it_nothing_is_broken(log: Log, board: Board) -> None:
    await turn(log, switch(InjectedFault(ERROR, "no such table")))
    async with working(log, TOPOLOGY, worker(log, board, echo).run):
        await append(log, task(1))
        (answer,) = await answers(log, 1)
    assert answer.kind == "succeeded"
