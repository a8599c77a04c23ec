"""The event loop that code of agents cannot end."""

import asyncio
import os
from collections.abc import Callable

import pytest

from mesh.runtime.execution.loop_guard import FORKED, GuardedLoop, run


def leave(error: BaseException) -> None:
    raise error


def in_a_task(error: BaseException) -> None:
    async def later() -> None:
        raise error

    _kept.append(asyncio.get_running_loop().create_task(later()))


def in_a_callback(error: BaseException) -> None:
    asyncio.get_running_loop().call_soon(leave, error)


def stopping(_error: BaseException) -> None:
    asyncio.get_running_loop().stop()


_kept: list[asyncio.Task[None]] = []


async def story(act: Callable[[], None], told: list[str] | None) -> int:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, GuardedLoop)
    loop.report = None if told is None else told.append
    act()
    for _ in range(5):
        await asyncio.sleep(0)
    for task in _kept:
        task.exception()
    return 5


@pytest.mark.parametrize("way", [in_a_task, in_a_callback, stopping])
@pytest.mark.parametrize("error", [SystemExit(0), SystemExit(9), KeyboardInterrupt()])
def test_it_goes_on_and_says_what_happened(
    way: Callable[[BaseException], None], error: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    _kept.clear()
    told: list[str] = []

    async def signalled() -> int:
        asyncio.get_running_loop().add_signal_handler(2, told.clear)  # SIGINT is the loop's, as in `mesh up`
        return await story(lambda: way(error), told)

    assert run(signalled()) == 5
    assert len(told) == 1
    assert "goes on" in told[0]
    if way is not stopping:
        assert type(error).__name__ in told[0]
        assert f"{__file__}:" in told[0]


@pytest.mark.parametrize(("way", "raised"), [(in_a_task, SystemExit), (stopping, RuntimeError)])
def test_until_it_is_asked_to_it_is_like_any_other(
    way: Callable[[BaseException], None], raised: type[BaseException]
) -> None:
    _kept.clear()
    with pytest.raises(raised):
        run(story(lambda: way(SystemExit(3)), None))
    for task in _kept:
        task.exception()


def test_an_exit_of_the_main_task_is_an_exit() -> None:
    async def main() -> None:
        asyncio.get_running_loop().report = lambda _: None  # type: ignore[attr-defined]
        raise SystemExit(4)

    with pytest.raises(SystemExit) as caught:
        run(main())
    assert caught.value.code == 4


def test_a_forked_copy_ends_before_anything_else_runs_in_it() -> None:
    reads, writes = os.pipe()

    async def main() -> int:
        asyncio.get_running_loop().call_soon(lambda: os.write(writes, b"%d " % os.getpid()))
        pid = os.fork()
        await asyncio.sleep(0)
        return pid

    pid = run(main())
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == FORKED
    os.close(writes)
    assert os.read(reads, 100) == b"%d " % os.getpid()
    os.close(reads)
