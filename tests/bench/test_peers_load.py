"""Peers are asked for runs so that a loss shows: accepted once, never asked for again; steps validate their input."""

import asyncio
from pathlib import Path

import pytest
from pydantic import ValidationError

from bench.peers.run_load import Runs, append, drive, run_id
from bench.peers.slow import Slowness

RUNS = 100


async def asked(runs: Runs, count: int) -> list[str]:
    """The ids that were asked for, until there are `count`."""
    seen: list[str] = []
    enough = asyncio.Event()

    async def take(id: str, ask: str) -> None:
        assert f'"{id}"' in ask
        seen.append(id)
        if len(seen) >= count:
            enough.set()

    driving = asyncio.ensure_future(drive(runs, call=take, accept=take))
    async with asyncio.timeout(20):
        await enough.wait()
        await asyncio.sleep(0)
    driving.cancel()
    await asyncio.wait([driving])
    return seen


async def test_each_run_is_asked_for_once_and_its_outcome_written_down(tmp_path: Path) -> None:
    seen = await asked(Runs(1, RUNS, tmp_path, Slowness.of("0", "")), RUNS)
    assert sorted(seen) == [run_id(n) for n in range(RUNS)]
    assert set((tmp_path / "answers").read_text().split()) <= set(seen)


async def test_a_run_that_was_accepted_before_the_kill_is_not_asked_for_again(tmp_path: Path) -> None:
    for n in range(RUNS - 1):
        append(tmp_path / "accepted", run_id(n))
    seen = await asked(Runs(1, RUNS, tmp_path, Slowness.of("1", "")), 1)
    assert seen == [run_id(RUNS - 1)]


async def test_the_last_step_of_a_slow_run_acts_on_the_world_and_the_first_says_that_it_began(tmp_path: Path) -> None:
    touched = tmp_path / "begun"
    runs = Runs(3, 1, tmp_path, Slowness.of("1", str(touched)))
    ask = runs.ask("run-0000007")
    for number in (1, 2):
        ask = await runs.step(number, ask)
        assert not (tmp_path / "answers").exists()
    assert await runs.step(3, ask) == '{"id":"run-0000007","total":6}'
    assert (tmp_path / "answers").read_text() == "run-0000007\n"
    assert touched.read_bytes() == b"."


async def test_a_step_validates_what_it_is_handed(tmp_path: Path) -> None:
    runs = Runs(1, 1, tmp_path, Slowness.of("0", ""))
    with pytest.raises(ValidationError):
        await runs.step(1, '{"id": 7}')


def test_every_id_is_as_long_as_the_others() -> None:
    assert len({len(run_id(n)) for n in (0, 10, 9_999_999)}) == 1
