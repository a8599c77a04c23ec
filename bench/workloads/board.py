"""board: operations one by one, and writers who all want one key."""

from collections.abc import Sequence

from bench.field import Setup
from bench.histogram import Histogram
from bench.report import LESS, Figure, significant
from bench.wire_board import alone, by_update, contention
from bench.workloads import Workload
from bench.workloads.run1 import TEXT

CALLS_PER_S, CALLS_MIN = 200, 100
WRITERS = (1, 16, 64)


async def run(setup: Setup) -> Sequence[Figure]:
    """Each operation alone, then increments of one key by more and more writers."""
    found: list[Figure] = []
    async with setup.field(TEXT) as field:
        board = field.board
        await board.start()
        await board.mark_complete(await board.incarnation())  # as a worker would: no earlier values are lost
        try:
            setup.say("one operation after the other")
            calls = max(CALLS_MIN, int(CALLS_PER_S * setup.seconds))
            for name, took_us in (await alone(board, calls)).items():
                took, at = Histogram(took_us), {"operation": name}
                found += [
                    Figure("p50_us", took.percentile(50), "µs", LESS, at, took.pairs()),
                    Figure("p99_us", took.percentile(99), "µs", LESS, at),
                ]
            for writers in WRITERS:
                setup.say(f"{writers} writers of one key")
                contended = await contention(board, writers, setup.seconds / (2 * len(WRITERS)), by_update)
                by = {"writers": writers}
                found += [
                    Figure("increments_per_s", significant(contended.per_s), "1/s", at=by),
                    Figure("increment_p99_us", Histogram(contended.took_us).percentile(99), "µs", LESS, by),
                ]
        finally:
            await board.close()
    return found


WORKLOAD = Workload(
    "board",
    "the blackboard: operations and contention",
    "Each operation with 200 bytes of JSON while nothing else goes on; then writers in one process who all increment "
    "one key by `ctx.board.update`, and none of whose increments may be lost. Embedded, or on the Redis that --board "
    "names.",
    run,
)
