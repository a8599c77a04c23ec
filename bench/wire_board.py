"""Measure the board on this machine, embedded and on Redis: `python -m bench.wire_board [--redis redis://…]`.

Values are 200 bytes of JSON. First one caller at a time, then writers in this process who all increment one key: by
compare-and-set, reading again after each conflict, and by `update` of an agent's board. Embedded, a write is
acknowledged after its commit; on Redis as the server is set up. Needs a Redis for its half (`scripts/redis start`);
interpreter and server share this machine's cores.
"""

import argparse
import asyncio
import gc
import json
import tempfile
import time
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path
from statistics import median, quantiles
from typing import NamedTuple

from mesh.adapters.ports import ABSENT, Board
from mesh.adapters.redis.board import RedisBoard
from mesh.adapters.sqlite import SqliteBoard
from mesh.context import AgentBoard
from mesh.core.errors import Conflict

VALUE = json.dumps({"score": 0.75, "why": "x" * 168}).encode()


async def one_by_one(call: Callable[[int], Awaitable[object]], times: int) -> list[float]:
    """Microseconds of each of so many calls that follow one another; a hundred before them are not counted."""
    took = []
    for serial in range(times + 100):
        begun = time.perf_counter()
        await call(serial)
        took.append((time.perf_counter() - begun) * 1e6)
    return took[100:]


def percentiles(took_us: list[float]) -> str:
    return f"p50 {median(took_us):>7,.0f} µs   p99 {quantiles(took_us, n=100)[98]:>8,.0f} µs"


async def alone(board: Board, times: int) -> dict[str, list[float]]:
    """Each operation with nothing else going on: microseconds of every call."""
    version = ABSENT

    async def compare_and_set(_: int) -> None:
        nonlocal version
        version = (await board.put("cas", VALUE, expect=version)).version

    await board.put("got", VALUE)
    return {
        "get": await one_by_one(lambda _: board.get("got"), times),
        "put": await one_by_one(lambda n: board.put(f"put/{n % 100}", VALUE), times),
        "compare-and-set": await one_by_one(compare_and_set, times),
        "put with op_id": await one_by_one(lambda n: board.put("op", VALUE, op_id=f"task:{n}"), times),
        "add": await one_by_one(lambda _: board.add("count", 1), times),
        "append, 100 items": await one_by_one(lambda n: board.append("list", b"%d" % n, items_max=100), times),
    }


Increment = Callable[[], Awaitable[int]]
"""Adds one; answers how many conflicts that took."""


def by_compare_and_set(board: Board, key: str) -> Increment:
    """Every writer for himself."""

    async def increment() -> int:
        conflicts = 0
        while True:
            found = await board.get(key)
            number, expect = (0, ABSENT) if found is None else (json.loads(found.value), found.version)
            try:
                await board.put(key, b"%d" % (number + 1), expect=expect)
                return conflicts
            except Conflict:
                conflicts += 1

    return increment


def by_update(board: Board, key: str) -> Increment:
    """As agents do it: writers of one process take turns."""
    agents_board = AgentBoard(board, by="bench", op_prefix="bench")

    async def increment() -> int:
        await agents_board.update(key, lambda number: number + 1, default=0)
        return 0

    return increment


class Contended(NamedTuple):
    """The figures of writers that increment one key."""

    per_s: float
    took_us: list[float]
    conflicts: float
    """Conflicts of one increment."""
    wins: list[int]
    """Increments of each writer."""

    def __str__(self) -> str:
        spread = f"most to fewest {max(self.wins)}:{min(self.wins)}"
        return f"{self.per_s:>6,.0f}/s   {percentiles(self.took_us)}   {self.conflicts:>4.1f} conflicts each   {spread}"


async def contention(board: Board, writers: int, seconds: float, how: Callable[[Board, str], Increment]) -> Contended:
    """Writers who increment one key for a while: none may be lost, none may starve."""
    key = f"contended/{how.__name__}/{writers}"
    increment = how(board, key)
    wins, conflicts, took = [0] * writers, 0, list[float]()
    end = time.perf_counter() + seconds

    async def write(writer: int) -> None:
        nonlocal conflicts
        while (begun := time.perf_counter()) < end:
            met = await increment()
            conflicts += met
            took.append((time.perf_counter() - begun) * 1e6)
            wins[writer] += 1

    await asyncio.gather(*(write(writer) for writer in range(writers)))
    final = await board.get(key)
    assert final is not None
    assert json.loads(final.value) == sum(wins), "an increment was lost"
    return Contended(sum(wins) / seconds, took, conflicts / sum(wins), wins)


async def report(board: Board, times: int, seconds: float) -> None:
    """Measure one board and print."""
    await board.start()
    await board.mark_complete(await board.incarnation())  # as a worker would: no earlier values are lost
    gc.freeze()  # what stood before is no part of what is measured
    print(board.url)
    for name, figures in (await alone(board, times)).items():
        print(f"  {name:<18} {percentiles(figures)}")
    for writers in (1, 16, 64):
        for how in (by_compare_and_set, by_update):
            print(f"  {writers:>2} writers {how.__name__:<18} {await contention(board, writers, seconds, how)}")
    await board.close()


async def main() -> None:
    """Parse arguments and measure both boards."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--redis", default="redis://127.0.0.1:6379", help="URL of a Redis; empty to leave it out")
    parser.add_argument("--calls", type=int, default=5_000, help="calls of each operation")
    parser.add_argument("--seconds", type=float, default=5.0, help="how long the writers contend")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        embedded = SqliteBoard(Path(directory) / "mesh.db", timeout_ms=5_000)
        await report(embedded, arguments.calls, arguments.seconds)
    if arguments.redis:
        prefix = f"bench-{uuid.uuid4().hex[:8]}"
        print(f"(keys stay under {{{prefix}}}:board: on)", end=" ")
        await report(RedisBoard(arguments.redis, prefix=prefix, timeout_ms=5_000), arguments.calls, arguments.seconds)


if __name__ == "__main__":
    asyncio.run(main())
