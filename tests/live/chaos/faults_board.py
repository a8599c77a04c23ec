"""Faults of Redis as a board sees them: a failover that forgets acknowledged writes, replies that are lost."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

from mesh.adapters.ports import Entry
from mesh.adapters.redis.board import RedisBoard
from mesh.core.errors import BoardUnavailable, Conflict
from tests.live.chaos.fault import Scale
from tests.live.chaos.proxy import Proxy
from tests.live.redis_server import Server, redis, until, until_available

PATIENT_MS, IMPATIENT_MS = 10_000.0, 500.0
Found = tuple[dict[str, Any], list[str]]
"""Figures, and what is wrong."""


class BoardFault(NamedTuple):
    """One row of the table that needs no mesh."""

    id: str
    title: str
    act: Callable[[Path, Scale], Awaitable[Found]]


@asynccontextmanager
async def board_on(url: str, timeout_ms: float = PATIENT_MS) -> AsyncIterator[RedisBoard]:
    """A board, closed afterwards."""
    board = RedisBoard(url, timeout_ms=timeout_ms, prefix="chaos")
    try:
        yield board
    finally:
        await board.close()


@asynccontextmanager
async def server(folder: Path, *options: str) -> AsyncIterator[Server]:
    """A Redis, killed afterwards."""
    made = Server(folder, *options)
    await made.start()
    try:
        yield made
    finally:
        await made.close()


async def failover(folder: Path, scale: Scale) -> Found:
    """F27: the link to the replica is cut, writes go on, the replica takes over."""
    writes = scale.times(5_000, 500)
    async with (
        server(folder / "a", "--repl-diskless-sync-delay", "0") as primary,
        server(folder / "b") as replica,
        Proxy(primary.port) as link,
        board_on(primary.url) as old,
        board_on(replica.url) as new,
    ):
        kept = [await old.put("k", b"0")]
        await redis(replica.port, "REPLICAOF", "127.0.0.1", str(link.port))

        async def linked() -> bool:
            return b"master_link_status:up" in await redis(replica.port, "INFO", "replication")

        async def caught_up() -> bool:
            return await new.get("k") == kept[-1]

        await until(linked)
        kept.append(await old.put("k", b"1"))  # the first replica to come gives the primary another life
        await until_available(new)
        await until(caught_up)
        link.hold(up=True, down=True)
        lost: list[Entry] = kept[-1:]
        for number in range(writes):
            lost.append(await old.put("k", b"%d" % number, expect=lost[-1].version))
        lives = [await old.incarnation()]
        await redis(replica.port, "REPLICAOF", "NO", "ONE")
        began = time.monotonic()
        await until(lambda: _takes_writes(new))
        recovered_s = time.monotonic() - began
        lives.append(await new.incarnation())
        passed = 0
        for entry in [*kept, *lost]:
            try:
                await new.put("k", b'"wrong"', expect=entry.version)
                passed += 1
            except Conflict:
                await new.put("k", b'"new"')  # the counter runs over the numbers that the lost writes had
    facts = {
        "asked": writes,
        "acked": writes,
        "kills": 1,
        "lost": 0,
        "worst_s": round(recovered_s, 2),
        "writes_forgotten_by_redis": writes,
    }
    wrong = [f"{passed} compare-and-set with a version from before the failover passed"] if passed else []
    return facts, wrong + (["the failover is not told by the incarnation"] if lives[0] == lives[1] else [])


async def _takes_writes(board: RedisBoard) -> bool:
    try:
        await board.put("k", b'"first"')
    except BoardUnavailable:
        return False
    return True


async def lost_replies(folder: Path, scale: Scale) -> Found:
    """F28: compare-and-set succeeds, its reply is lost, and it is sent again."""
    times = scale.times(500, 50)
    wrong = []
    worst_s = 0.0
    async with server(folder / "r") as there, Proxy(there.port) as way:
        async with board_on(there.url) as board, board_on(f"redis://127.0.0.1:{way.port}", IMPATIENT_MS) as lossy:
            entry = await board.put("k", b"0")
            await lossy.start()
            for number in range(1, times + 1):
                way.drop_reply.set()
                try:
                    await lossy.put("k", b"%d" % number, expect=entry.version, op_id=f"op:{number}")
                    wrong.append(f"write {number} was answered though its reply was lost")
                except BoardUnavailable:
                    began = time.monotonic()
                    async with asyncio.timeout(30):
                        entry = await _again(lossy, number, entry)
                    worst_s = max(worst_s, time.monotonic() - began)
                if await board.get("k") != entry:
                    wrong.append(f"write {number} was answered with another entry than the one that stands")
            values = [int(past.value) for past in await board.history("k", limit=1_000)]
            if values != list(range(times, -1, -1)):
                wrong.append(f"the history is not one entry a write: {values}")
        dropped = way.dropped
    return {
        "asked": times,
        "acked": times,
        "kills": dropped,
        "lost": 0,
        "worst_s": round(worst_s, 2),
        "replies_lost": dropped,
    }, wrong


async def _again(board: RedisBoard, number: int, before: Entry) -> Entry:
    while True:
        try:
            return await board.put("k", b"%d" % number, expect=before.version, op_id=f"op:{number}")
        except BoardUnavailable:
            await asyncio.sleep(0.005)


BOARD = (
    BoardFault("F27", "Redis fails over without the last writes", failover),
    BoardFault("F28", "the reply of a compare-and-set is lost, it is asked again", lost_replies),
)
