"""A mirrored board is watched, completed and tidied, on a real log."""

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from mesh.adapters.ports import Appended, Bounds, Log, Refused
from mesh.adapters.sqlite import SqliteBoard, SqliteLog
from mesh.app.wiring import topic_specs
from mesh.core.board.changelog import BoardRestart
from mesh.core.protocol.record import NewRecord
from mesh.runtime.board_changelog import read_mirror
from mesh.runtime.board_maintenance import BoardMaintainer
from tests.builders import AT_MS
from tests.runtime.changelog_kit import CLOCK, ECHO, Reborn, board, change, log, size, tell, versions

__all__ = ["board", "log"]  # fixtures


async def test_a_new_incarnation_is_reported_once_with_the_old_one(log: Log, board: Reborn) -> None:
    maintainer, other = (BoardMaintainer(log, board, ECHO, CLOCK) for _ in range(2))
    for each in (maintainer, other):
        assert await each.look() is None
    board.new_incarnation = "second"
    first = await SqliteBoard.incarnation(board)
    noticed = await maintainer.look()
    assert noticed is not None
    assert (noticed.old, noticed.new) == (first, "second")
    assert await maintainer.look() is None
    also = await other.look()
    assert also is not None, "each process says it in its own log"
    mirror = await read_mirror(log, CLOCK, ECHO)
    assert [(r.old, r.new) for r in mirror.restarts] == [(first, "second")]
    assert await size(log) == 1


async def test_an_incarnation_that_ended_unseen_is_noticed_by_what_was_written_last(log: Log, board: Reborn) -> None:
    await tell(log, *(change("k", f"aa:{n}") for n in range(300)))
    board.new_incarnation = "bb"
    noticed = await BoardMaintainer(log, board, ECHO, CLOCK).look()
    assert noticed is not None
    assert (noticed.old, noticed.new) == ("aa", "bb")
    assert await BoardMaintainer(log, board, ECHO, CLOCK).look() is None, "it stands in the log now"


async def test_it_looks_until_it_is_stopped_and_outlives_a_store_that_is_gone(
    log: Log, board: Reborn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mesh.runtime.board_maintenance.LOOK_EVERY_MS", 2)
    await tell(log, change("k", "aa:1"))
    stop = asyncio.Event()
    board.gone = True
    running = asyncio.create_task(BoardMaintainer(log, board, ECHO, CLOCK).run(stop))
    async with asyncio.timeout(20):
        while board.refusals < 3:  # noqa: ASYNC110  # it has no event to set
            await asyncio.sleep(0.002)
        board.gone, board.new_incarnation = False, "bb"
        while not (await read_mirror(log, CLOCK, ECHO)).restarts:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
        stop.set()
        await running


async def test_tidied_up_it_holds_the_newest_of_each_key_and_all_restarts(log: Log, board: Reborn) -> None:
    await tell(log, *(change(f"k{n % 7}", f"aa:{n}", b"%d" % n) for n in range(200)))
    await tell(log, BoardRestart("aa", "bb", AT_MS), change("k0", "bb:1"), change("k0", "aa:900"))
    before = await read_mirror(log, CLOCK, ECHO)
    maintainer = BoardMaintainer(log, board, ECHO, CLOCK, tidy_from_records=100)
    assert await maintainer.tidy() == 7
    after = await read_mirror(log, CLOCK, ECHO)
    assert await size(log) == 8
    assert {k: h.change for k, h in after.newest().items()} == {k: h.change for k, h in before.newest().items()}
    assert versions(after)["k0"] == "bb:1"
    assert (after.restarts, after.incarnations) == (before.restarts, before.incarnations)
    assert await maintainer.tidy() == 0, "nothing to do"
    await tell(log, change("k1", "bb:2"))
    assert versions(await read_mirror(log, CLOCK, ECHO))["k1"] == "bb:2"


async def test_nothing_is_compacted_if_most_is_current_or_another_process_does_it(log: Log, board: Reborn) -> None:
    await tell(log, *(change(f"k{n}", f"aa:{n}") for n in range(150)))
    first, second = (BoardMaintainer(log, board, ECHO, CLOCK, tidy_from_records=100) for _ in range(2))
    assert await first.tidy() == 0
    await tell(log, *(change(f"k{n}", f"aa:{n}") for n in range(150)))
    assert await second.tidy() == 0, "the first one holds the lease"
    assert await size(log) == 300
    assert await first.tidy() == 150
    assert await size(log) == 150


async def test_more_keys_than_fit_one_append_are_all_copied(log: Log, board: Reborn) -> None:
    await tell(log, *(change(f"k{n % 450}", f"aa:{n}") for n in range(1_000)))
    assert await BoardMaintainer(log, board, ECHO, CLOCK, tidy_from_records=100).tidy() == 450
    assert len(versions(await read_mirror(log, CLOCK, ECHO))) == await size(log) == 450


async def test_a_reader_misses_nothing_while_others_tidy_up(tmp_path: Path, log: Log, board: Reborn) -> None:
    await tell(log, *(change(f"k{n % 40}", f"aa:{n}") for n in range(1_200)))

    class Slow(SqliteLog):
        """Everything is tidied up after the bounds were read."""

        tidied = False

        async def bounds(self, topic: str) -> Mapping[int, Bounds]:
            found = await super().bounds(topic)
            if not self.tidied:
                self.tidied = True
                assert await BoardMaintainer(log, board, ECHO, CLOCK, tidy_from_records=100).tidy() == 40
            return found

    slow = Slow(tmp_path / "mesh.db")
    await slow.start()
    try:
        mirror = await read_mirror(slow, CLOCK, ECHO)
    finally:
        await slow.close()
    assert versions(mirror) == {f"k{n % 40}": f"aa:{n}" for n in range(1_160, 1_200)}


async def test_nothing_is_trimmed_when_a_copy_was_refused(tmp_path: Path, board: Reborn) -> None:
    class Refusing(SqliteLog):
        refuse = False

        async def append(self, records: Sequence[NewRecord]) -> Sequence[Appended | Refused]:
            if self.refuse:
                return [Refused("unauthorized", "no") for _ in records]
            return await super().append(records)

    log = Refusing(tmp_path / "mesh.db")
    await log.start()
    try:
        await log.create_topics(topic_specs(ECHO))
        await tell(log, *(change(f"k{n % 4}", f"aa:{n}") for n in range(200)))
        log.refuse = True
        with pytest.raises(Exception, match="refused a change of the board"):
            await BoardMaintainer(log, board, ECHO, CLOCK, tidy_from_records=100).tidy()
        assert await size(log) == 200
    finally:
        await log.close()
