"""Asynchronous tests in this folder run on virtual time; so does the clock that contract tests ask."""

import asyncio
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

import pytest

from tests.sim.loop import SimLoop
from tests.sim.world import EPOCH_MS

CONTRACTS = ("log_kit", "log_contract", "group_contract", "board_kit", "board_contract", "board_follow_contract")
_loops: list[SimLoop] = []


def _new_loop() -> SimLoop:
    _loops[:] = [SimLoop()]
    return _loops[0]


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Every asynchronous test here has a loop of its own with time of its own."""
    return {"virtual": _new_loop}


@pytest.fixture(autouse=True)
def virtual_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Contract tests measure with the module `time`; they get the loop's."""
    clock: Any = SimpleNamespace(
        monotonic=lambda: _loops[0].time(),
        time_ns=lambda: EPOCH_MS * 1_000_000 + int(_loops[0].time() * 1e9),
    )
    for name in CONTRACTS:
        monkeypatch.setattr(f"tests.adapters.{name}.time", clock, raising=False)
