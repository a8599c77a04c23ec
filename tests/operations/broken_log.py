"""A log that is gone at a chosen append, and a clock that does not wait."""

import asyncio
from collections.abc import Sequence
from typing import Any

from mesh.adapters.clock import SystemClock
from mesh.adapters.ports import Appended, Log, Refused
from mesh.core.errors import LogUnavailable
from mesh.core.protocol.record import NewRecord


class Hasty(SystemClock):
    """Keeps to no rate: it does not wait."""

    async def sleep_ms(self, delay_ms: float) -> None:
        await asyncio.sleep(0)


class Broken:
    """The log, until its n-th append from now on; `after`: that one still gets through."""

    def __init__(self, log: Log, appends: int, *, after: bool) -> None:
        self._log, self._left, self._after = log, appends, after

    async def append(self, records: Sequence[NewRecord]) -> Sequence[Appended | Refused]:
        self._left -= 1
        if self._left < 0 or (self._left == 0 and not self._after):
            raise LogUnavailable("gone", where="test")
        verdicts = await self._log.append(records)
        if self._left == 0:
            raise LogUnavailable("gone", where="test")
        return verdicts

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)
