"""Wake-up: the event, and the pipes between openers."""

import asyncio
import os
import resource
import select
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mesh.adapters.sqlite.storage.wake import WakePipe, Wakeup


def readable(fd: int) -> bool:
    return bool(select.select([fd], [], [], 0)[0])


@contextmanager
def no_more_files(but: int = 0) -> Iterator[None]:
    """This process may open `but` more files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.dup(0)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free + but, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture
def wakeup() -> Wakeup:
    return Wakeup({1, 2}, lambda _: None)


@pytest.fixture
def bells(tmp_path: Path) -> Iterator[list[WakePipe]]:
    bells = [WakePipe(tmp_path / "mesh.db.wake") for _ in range(3)]
    yield bells
    for bell in bells:
        bell.close()


async def test_a_wait_ends_when_the_event_is_set_and_reports_what_fired(wakeup: Wakeup) -> None:
    waits = [asyncio.ensure_future(wakeup.wait()) for _ in range(3)]
    await asyncio.sleep(0)
    wakeup.offer(frozenset({2, 3}))
    async with asyncio.timeout(20):
        assert await asyncio.gather(*waits) == [True, True, True]
    assert wakeup.fired == {2}
    assert not wakeup.everything
    assert wakeup.is_set()
    assert await wakeup.wait(0)
    wakeup.clear()
    assert wakeup.fired == set()
    assert not wakeup.is_set()


async def test_a_wait_ends_when_its_time_is_over(wakeup: Wakeup) -> None:
    begun = time.monotonic()
    assert not await wakeup.wait(30)
    assert time.monotonic() - begun >= 0.029
    assert not await wakeup.wait(0)


async def test_a_cancelled_wait_leaves_the_others_waiting(wakeup: Wakeup) -> None:
    cancelled, other = (asyncio.ensure_future(wakeup.wait()) for _ in range(2))
    await asyncio.sleep(0)
    cancelled.cancel()
    await asyncio.sleep(0)
    wakeup.set({1})
    assert await other
    assert cancelled.cancelled()


def test_foreign_channels_do_not_wake(wakeup: Wakeup) -> None:
    wakeup.offer(frozenset({3, -1}))
    assert not wakeup.is_set()


def test_unknown_channels_wake_for_everything(wakeup: Wakeup) -> None:
    wakeup.offer(None)
    assert wakeup.everything
    wakeup.clear()
    assert not wakeup.everything


def test_a_listener_without_channels_is_woken_by_all() -> None:
    wakeup = Wakeup(None, lambda _: None)
    wakeup.offer(frozenset({-7}))
    assert wakeup.fired == {-7}


def test_a_ring_reaches_every_other_opener_and_not_the_ringer(bells: list[WakePipe]) -> None:
    fds = [bell.open() for bell in bells]
    bells[0].notify([5, -3])
    bells[0].notify([7])
    assert [readable(fd) for fd in fds] == [False, True, True]
    assert bells[1].drain() == frozenset({5, -3, 7})
    assert bells[2].drain() == frozenset({5, -3, 7})
    assert bells[1].drain() == frozenset()
    assert not readable(fds[1])


def test_a_lack_of_open_files_fails_no_ring_and_makes_no_opener_dead(bells: list[WakePipe]) -> None:
    for bell in bells:
        bell.open()
    bells[0].notify([1])
    late = WakePipe(bells[0]._directory)
    late.open()
    with no_more_files():
        bells[0].notify([2])
    with no_more_files(but=1):  # enough to read the directory, with its descriptor closed again to open one pipe
        bells[0].notify([3])
    bells[0].notify([4])
    assert bells[1].drain() == frozenset({1, 2, 3, 4})
    heard = late.drain()
    assert heard is not None
    assert 4 in heard
    late.close()


def test_openers_that_come_later_are_found_and_those_that_go_are_forgotten(bells: list[WakePipe]) -> None:
    bells[0].open()
    bells[0].notify([1])
    bells[1].open()
    bells[0].notify([2])
    assert bells[1].drain() == frozenset({2})
    bells[1].close()
    bells[2].open()
    bells[0].notify([3])
    assert bells[2].drain() == frozenset({3})


def test_too_many_channels_or_a_full_pipe_mean_everything(bells: list[WakePipe]) -> None:
    bells[0].open()
    bells[1].open()
    bells[0].notify(range(10_000))
    assert bells[1].drain() is None
    for _ in range(20_000):
        bells[0].notify([1])
    assert bells[1].drain() is None


def die(bell: WakePipe) -> None:
    """Leave the pipe behind, as a killed process does."""
    os.close(bell._read_fd)
    os.close(bell._keep_fd)
    bell._read_fd = -1


def test_a_killed_opener_is_known_to_be_dead_and_does_no_harm(bells: list[WakePipe]) -> None:
    for bell in bells:
        bell.open()
    bells[0].notify([1])
    assert not bells[0].is_dead(bells[1].name)
    assert not bells[0].is_dead("unknown")
    die(bells[1])
    assert bells[0].is_dead(bells[1].name)
    for _ in range(3):
        bells[0].notify([2])
    assert bells[2].drain() == frozenset({1, 2})
    bells[2].close()
    bells[0].notify([3])
    assert not bells[0].is_dead(bells[2].name)


def test_pipes_of_the_long_dead_are_removed(bells: list[WakePipe], tmp_path: Path) -> None:
    directory = tmp_path / "mesh.db.wake"
    directory.mkdir()
    for name, age_s in ((".old", 1_000), ("old", 1_000), (".new", 0), ("new", 0)):
        os.mkfifo(directory / name)
        os.utime(directory / name, (time.time() - age_s,) * 2)
    bells[0].open()
    assert sorted(os.listdir(directory)) == sorted([".new", "new", bells[0].name])
    bells[1].open()
    os.utime(directory / bells[0].name, (0, 0))
    bells[2].open()
    assert bells[0].name in os.listdir(directory)


def test_a_removed_directory_fails_no_opener(bells: list[WakePipe], tmp_path: Path) -> None:
    directory = tmp_path / "mesh.db.wake"
    bells[0].open()
    for name in os.listdir(directory):
        (directory / name).unlink()
    directory.rmdir()
    bells[0].notify([1])


def test_a_path_may_be_long(tmp_path: Path) -> None:
    bells = [WakePipe(tmp_path / ("d" * 200) / "mesh.db.wake") for _ in range(2)]
    for bell in bells:
        bell.open()
    bells[0].notify([1])
    assert bells[1].drain() == frozenset({1})
    for bell in bells:
        bell.close()
