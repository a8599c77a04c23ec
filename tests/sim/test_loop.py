"""The loop of the simulation: time jumps, processes are killed or stopped at any await, things have one order."""

import asyncio
from collections.abc import Callable

import pytest

from tests.sim.loop import WORLD, Node, SimLoop, Stuck, bury


def run(loop: SimLoop, seconds: float) -> None:
    """Let so much time pass."""
    until = loop.time() + seconds
    loop.call_at(until, lambda: None, context=WORLD)
    loop.run_until(lambda: loop.time() >= until)


def started(loop: SimLoop, node: Node, work: Callable[[], object]) -> asyncio.Task[object]:
    """A task of a node."""
    return node.context.run(loop.create_task, work())


def ticking(said: list[str], name: str) -> Callable[[], object]:
    async def tick() -> None:
        try:
            while True:
                await asyncio.sleep(1)
                said.append(f"{name} {asyncio.get_running_loop().time():g}")
        finally:
            said.append(f"{name} cleans up")

    return tick


def test_an_hour_passes_at_once_and_timers_come_in_order() -> None:
    loop = SimLoop()

    async def wait() -> tuple[float, ...]:
        async def sleep(seconds: float) -> float:
            await asyncio.sleep(seconds)
            return loop.time()

        with pytest.raises(TimeoutError):
            async with asyncio.timeout(5):
                await asyncio.Event().wait()
        return tuple(await asyncio.gather(sleep(3_600), sleep(2), sleep(1)))

    assert loop.run_until_complete(wait()) == (3_605.0, 7.0, 6.0)


def test_what_is_killed_does_nothing_more_not_even_clean_up() -> None:
    loop, node, other, said = SimLoop(), Node("a"), Node("b"), list[str]()
    started(loop, node, ticking(said, "a"))
    started(loop, other, ticking(said, "b"))
    run(loop, 1.5)
    node.dead = True
    run(loop, 1)
    assert said == ["a 1", "b 1", "b 2"]
    bury([*node.tasks, *other.tasks])
    assert said[3:] == ["a cleans up", "b cleans up"]


def test_what_is_stopped_goes_on_later_with_all_that_came_meanwhile() -> None:
    loop, node, said = SimLoop(), Node("a"), list[str]()
    started(loop, node, ticking(said, "a"))
    run(loop, 1.5)
    node.paused = True
    run(loop, 5)
    assert said == ["a 1"]
    loop.resume(node)
    run(loop, 1.1)
    assert said == ["a 1", "a 6.5", "a 7.5"]
    bury(node.tasks)


def test_a_kill_can_hit_between_any_two_steps_of_a_process() -> None:
    ends = set()
    for steps in range(1, 12):
        loop, node, said = SimLoop(), Node("a"), list[str]()
        left = steps

        def watch(node: Node = node) -> None:
            nonlocal left
            left -= 1
            if not left:
                node.dead = True

        node.watch = watch
        started(loop, node, ticking(said, "a"))
        run(loop, 10)
        ends.add(len(said))
        bury(node.tasks)
    assert ends == {0, 1, 2, 3, 4}


def test_a_set_of_tasks_has_the_same_order_each_time() -> None:
    def order() -> list[str]:
        loop = SimLoop()

        async def wait() -> list[str]:
            tasks = {asyncio.ensure_future(asyncio.sleep(0, f"{n}")) for n in range(50)}
            done, _ = await asyncio.wait(tasks)
            return [task.get_name() for task in done]

        names: list[str] = loop.run_until_complete(wait())
        return names

    keep = [object() for _ in range(1_000)]
    assert order() == order()
    del keep


def test_a_wait_without_end_is_reported() -> None:
    loop = SimLoop()
    with pytest.raises(Stuck, match="nothing is left to happen"):
        loop.run_until_complete(loop.create_future())


def test_a_process_in_an_endless_loop_is_reported() -> None:
    loop = SimLoop(steps_max=1_000)

    async def spin() -> None:
        for _ in range(10_000):
            await asyncio.sleep(0)

    task = loop.create_task(spin())
    with pytest.raises(Stuck, match="round and round"):
        loop.run_until(task.done)
    bury([task])
