"""Processes for tasks that may kill theirs: real ones."""

import asyncio
import io
import os
import random
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import orjson
import pytest

from mesh.app.wiring import open_board
from mesh.core.board.changelog import BoardChange
from mesh.core.protocol.event import TASK, Event
from mesh.core.task.agent import Agent, describe
from mesh.core.task.fault_injection import CRASH, InjectedFault
from mesh.core.topology.loader import load
from mesh.runtime.execution.isolation import (
    CallRequest,
    ChildProcesses,
    IsolatedProcessDied,
    NotLoaded,
    frame,
    read_frame,
)
from mesh.settings import Settings
from tests.runtime.execution.isolated_agents import Ask, Told, blocking, wild

ROOT = Path(__file__).parents[3]
SPEC = load("""
mesh: {name: t, prefix: mesh, inbox: {partitions: 1}}
topics:
  asks: {ingress: ask, partitions: 1}
  tells: {egress: told, partitions: 1}
agents:
  wild: {run: "x:y", on: ask, emits: told}
""").agents["wild"]
WILD, BLOCKING = describe(wild).where, describe(blocking).where


def order(what: str, where: str = WILD, broken: InjectedFault | None = None) -> CallRequest:
    data = orjson.dumps({"what": what})
    return CallRequest(SPEC, where, Event("t:1", "/m", "ask", TASK, "r", data, agent="wild", task_id="t"), broken)


@pytest.fixture
async def cells(tmp_path: Path) -> AsyncIterator[ChildProcesses]:
    made = ChildProcesses(settings_in(tmp_path), processes_max=2)
    async with asyncio.timeout(60):
        yield made
        await made.close()


def settings_in(folder: Path) -> Settings:
    return Settings(log=f"sqlite:{folder / 'mesh.db'}", board_prefix="mesh")


async def ask(cells: ChildProcesses, what: str, where: str = WILD) -> Event:
    async with cells.acquire(where) as cell:
        return await cell.answer(order(what, where), None)


def pid_in(answer: Event) -> int:
    assert answer.kind == "succeeded", answer.fault
    return int(orjson.loads(answer.data)["pid"])


async def gone(pid: int) -> None:
    async with asyncio.timeout(20):
        while incarnations(pid):  # noqa: ASYNC110  # it is not ours to wait for
            await asyncio.sleep(0.01)


def incarnations(pid: int) -> bool:
    """A zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def children() -> list[str]:
    """Cells of this process that live."""
    found = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    return [pid for pid in found if incarnations(int(pid))]


async def test_a_task_is_answered_in_another_process_that_serves_the_next_one_too(cells: ChildProcesses) -> None:
    first = pid_in(await ask(cells, "hello"))
    assert first != os.getpid()
    assert pid_in(await ask(cells, "hello", BLOCKING)) == first
    assert list(cells.pids) == [first]


async def test_a_task_has_the_time_and_random_numbers_there_that_it_has_here(cells: ChildProcesses) -> None:
    asked = order("facts")
    asked.task.time = "2026-11-30T12:00:00.123Z"
    async with cells.acquire(WILD) as cell:
        answer = await cell.answer(asked._replace(sandbox=True), None)
    there = orjson.loads(answer.data)["text"]
    assert there == f"1796040000123 {random.Random('t').random()} True"


async def test_its_board_writes_are_kept_and_reported_and_its_usage_is_charged(
    cells: ChildProcesses, tmp_path: Path
) -> None:
    changes: list[BoardChange] = []
    async with cells.acquire(WILD) as cell:
        answer = await cell.answer(order("board"), changes.append)
    board = open_board(settings_in(tmp_path), "mesh")
    await board.start()
    entry = await board.get("said")
    await board.close()
    assert entry is not None
    assert [(c.key, c.value, c.version) for c in changes] == [("said", entry.value, entry.version)]
    assert answer.usage is not None
    assert answer.usage.usd_micros == 100_000


@pytest.mark.parametrize(
    ("what", "code"), [("exit", 9), ("kill", -9), ("cancel", 1), ("close", 1), ("child", 9), ("fork", 9)]
)
async def test_the_death_of_its_process_is_reported_and_the_next_task_gets_another(
    cells: ChildProcesses, what: str, code: int
) -> None:
    first = pid_in(await ask(cells, "hello"))
    with pytest.raises(IsolatedProcessDied) as died:
        await ask(cells, what)
    assert died.value.code == code
    await gone(first)
    assert pid_in(await ask(cells, "hello")) != first


async def test_an_agent_that_is_broken_on_purpose_crashes_its_isolated_process(cells: ChildProcesses) -> None:
    async with cells.acquire(WILD) as cell:
        with pytest.raises(IsolatedProcessDied):
            await cell.answer(order("hello", broken=InjectedFault(CRASH)), None)


async def test_what_an_agent_raises_is_its_answer(cells: ChildProcesses) -> None:
    answer = await ask(cells, "raise")
    assert answer.fault is not None
    assert (answer.fault.code, answer.fault.message) == ("exception", "SystemExit: 4")
    assert answer.usage is not None


async def test_an_agent_that_reads_its_input_reads_none_of_our_orders(cells: ChildProcesses) -> None:
    answer = await ask(cells, "read")
    assert orjson.loads(answer.data)["text"] == ""


@pytest.mark.parametrize(("what", "where"), [("hang", WILD), ("block", WILD), ("hang", BLOCKING)])
async def test_a_call_that_is_cancelled_is_killed_whatever_it_does(
    cells: ChildProcesses, what: str, where: str
) -> None:
    pid = pid_in(await ask(cells, "hello", where))
    asking = asyncio.create_task(ask(cells, what, where))
    while cells.pids:  # noqa: ASYNC110  # until it has been taken
        await asyncio.sleep(0.001)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    await gone(pid)


@pytest.mark.parametrize("turns", [1, 2, 3, 5, 8, 13])
async def test_a_process_whose_caller_gave_up_at_its_start_is_not_left_behind(
    cells: ChildProcesses, turns: int
) -> None:
    before = set(children())  # of other tests: servers
    asking = asyncio.create_task(ask(cells, "hello"))
    for _ in range(turns):
        await asyncio.sleep(0)
    asking.cancel()
    await asyncio.wait((asking,))
    await cells.close()
    async with asyncio.timeout(20):
        while set(children()) - before:  # noqa: ASYNC110  # processes without a handle cannot be awaited
            await asyncio.sleep(0.01)


async def test_what_an_agent_began_in_it_ends_with_it(cells: ChildProcesses) -> None:
    begun = pid_in(await ask(cells, "begin"))
    assert incarnations(begun)
    await cells.close()
    await gone(begun)


async def test_what_an_agent_begins_can_be_asked_to_end(cells: ChildProcesses) -> None:
    async with asyncio.timeout(20):
        answer = await ask(cells, "terminate")
    assert orjson.loads(answer.data)["text"] == str(-signal.SIGTERM)


async def test_what_an_agent_prints_stands_there_before_its_answer(
    cells: ChildProcesses, capfd: pytest.CaptureFixture[str]
) -> None:
    await ask(cells, "print")
    assert capfd.readouterr().out == "printed\n"


async def test_relative_paths_mean_what_they_meant_at_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    cells = ChildProcesses(Settings(log="sqlite:mesh.db"))
    monkeypatch.chdir(tmp_path.parent)
    assert (await ask(cells, "board")).kind == "succeeded"
    await cells.close()
    assert (tmp_path / "mesh.db").exists()


async def test_one_that_is_at_work_when_all_are_ended_ends_afterwards(cells: ChildProcesses) -> None:
    async with cells.acquire(WILD) as cell:
        pid = pid_in(await cell.answer(order("hello"), None))
        await cells.close()
    await gone(pid)


async def test_only_so_many_at_once(cells: ChildProcesses) -> None:
    async with cells.acquire(WILD), cells.acquire(WILD):
        waiting = asyncio.create_task(ask(cells, "hello"))
        done, _ = await asyncio.wait((waiting,), timeout=0.2)
        assert not done
    assert (await waiting).kind == "succeeded"


async def test_it_ends_after_an_idle_time(tmp_path: Path) -> None:
    cells = ChildProcesses(settings_in(tmp_path), idle_s=0.05)
    pid = pid_in(await ask(cells, "hello"))
    await gone(pid)
    assert not cells.pids
    assert pid_in(await ask(cells, "hello")) != pid
    await cells.close()


async def test_one_that_was_killed_while_it_had_nothing_to_do_is_replaced(cells: ChildProcesses) -> None:
    pid = pid_in(await ask(cells, "hello"))
    os.kill(pid, signal.SIGKILL)
    assert pid_in(await ask(cells, "hello")) != pid


async def test_it_is_not_for_the_system_to_end_it_in_good_order(cells: ChildProcesses) -> None:
    pid = pid_in(await ask(cells, "hello"))
    for asks in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        os.kill(pid, asks)
    assert pid_in(await ask(cells, "hello")) == pid


@pytest.mark.parametrize("what", ["hello", "hang", "block"])
async def test_it_ends_with_its_worker_whatever_it_does(tmp_path: Path, what: str) -> None:
    text = f"""
import asyncio, os, sys
from pathlib import Path
from tests.runtime.execution.test_isolation import WILD, ChildProcesses, ask, order, pid_in, settings_in
async def main():
    cells = ChildProcesses(settings_in(Path({str(tmp_path)!r})))
    print(pid_in(await ask(cells, "hello")), flush=True)
    if {what!r} != "hello":
        await ask(cells, {what!r})
    await asyncio.Event().wait()
asyncio.run(main())
"""
    worker = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", text), cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    assert worker.stdout is not None
    pid = int(await worker.stdout.readline())
    assert incarnations(pid)
    worker.kill()
    await worker.wait()
    await gone(pid)


async def test_it_ends_with_its_worker_though_a_copy_of_that_holds_its_orders_open(tmp_path: Path) -> None:
    text = f"""
import asyncio, os, time
from pathlib import Path
from tests.runtime.execution.test_isolation import ChildProcesses, ask, pid_in, settings_in
async def main():
    cells = ChildProcesses(settings_in(Path({str(tmp_path)!r})))
    cell = pid_in(await ask(cells, "hello"))
    copy = os.fork()
    if copy:
        print(cell, copy, flush=True)
    os.close(1)
    time.sleep(600)
asyncio.run(main())
"""
    worker = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", text), cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    assert worker.stdout is not None
    cell, copy = map(int, (await worker.stdout.readline()).split())
    try:
        async with asyncio.timeout(20):
            worker.kill()
            await worker.wait()
        await gone(cell)
    finally:
        os.kill(copy, signal.SIGKILL)


def test_an_order_that_breaks_off_is_the_end() -> None:
    whole = frame(order("hello"))
    assert read_frame(io.BytesIO(whole)) == order("hello")
    for length in (0, 1, 5, len(whole) - 1):
        with pytest.raises(EOFError):
            read_frame(io.BytesIO(whole[:length]))


async def test_a_function_that_cannot_be_loaded_there_is_reported_and_blocks_no_isolated_process(
    tmp_path: Path,
) -> None:
    cells = ChildProcesses(settings_in(tmp_path), processes_max=1)
    with pytest.raises(NotLoaded, match=r"No module named .tests\.adapters\.nowhere."):
        await ask(cells, "hello", "tests.adapters.nowhere:agent")
    assert (await ask(cells, "hello")).kind == "succeeded"
    await cells.close()


@pytest.mark.parametrize("what", ["leave thread", "leave task"])
async def test_an_isolated_process_in_which_a_task_left_something_serves_no_other_task(
    cells: ChildProcesses, what: str
) -> None:
    first = pid_in(await ask(cells, what))
    assert not cells.pids
    assert pid_in(await ask(cells, "hello")) != first
    await gone(first)


def test_a_function_is_taken_if_another_process_finds_the_same_one(cells: ChildProcesses) -> None:
    async def hidden(ask: Ask) -> Told | None: ...

    def named(where: str) -> Agent:
        agent = describe(wild)
        return Agent(agent.function, agent.parameters, agent.context, agent.emits, agent.is_async, where)

    assert cells.can_run(describe(wild))
    assert not cells.can_run(describe(hidden))
    assert not cells.can_run(named("__main__:wild"))
    assert not cells.can_run(named(BLOCKING))
