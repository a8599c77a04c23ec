"""Read many partitions of the log in the order of log time, as far as one pass in bounded memory allows.

    async with aclosing(read_by_time(log, earlier, leading, following)) as batches: …

A batch of a leading partition comes when all leading records before it in time were read. The records of `earlier`
topics up to its end come before it, those of `following` topics after it, up to the time that all leading partitions
have reached. Each partition is read in order of its offsets.
"""

from bisect import bisect_left
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing

from mesh.adapters.ports import Bounds, Clock, ReadLog
from mesh.core.protocol.record import Record
from mesh.runtime.log_reader import read_batches

Spans = Mapping[str, Mapping[int, Bounds]]
"""Topic → its partitions → what is read of them."""


class _Stream:
    """One partition: a batch that was read, and the place in it."""

    def __init__(self, batches: AsyncGenerator[Sequence[Record]]) -> None:
        self._batches = batches
        self._batch: Sequence[Record] = ()
        self._place = 0
        self.next_ms: int | None = None
        """Log time of the next record; None at the end."""

    async def advance(self) -> None:
        """Read the next batch, if this one is used up."""
        if self._place >= len(self._batch):
            self._batch, self._place = await anext(self._batches, []), 0
        self.next_ms = self._batch[self._place].timestamp if self._batch else None

    async def take_batch(self) -> Sequence[Record]:
        """Return what is left of the batch."""
        taken = self._batch[self._place :]
        self._place = len(self._batch)
        await self.advance()
        return taken

    async def take_before(self, at_ms: int | None) -> AsyncGenerator[Sequence[Record]]:
        """Yield the records before a time; None: all."""
        while self.next_ms is not None and (at_ms is None or self.next_ms < at_ms):
            begin, batch = self._place, self._batch
            whole = at_ms is None or batch[-1].timestamp < at_ms
            end = len(batch) if whole else bisect_left(batch, at_ms, lo=begin, key=lambda record: record.timestamp)
            self._place = max(end, begin + 1)  # times may go back within a batch
            await self.advance()
            yield batch[begin : max(end, begin + 1)]


async def read_by_time(
    log: ReadLog, earlier: Spans, leading: Spans, following: Spans, clock: Clock | None = None
) -> AsyncGenerator[Sequence[Record]]:
    """Yield batches of records of one partition each; see the module. Close the generator (`aclosing`).

    Raises NotFound, and LogUnavailable when a partition does not go on for 30 s.
    """
    async with AsyncExitStack() as stack:

        async def opened(spans: Spans) -> list[_Stream]:
            streams = []
            for topic, partitions in spans.items():
                for number, bounds in sorted(partitions.items()):
                    batches = read_batches(log, topic, {number: bounds}, clock)
                    streams.append(_Stream(await stack.enter_async_context(aclosing(batches))))
                    await streams[-1].advance()
            return streams

        before, leaders, after = await opened(earlier), await opened(leading), await opened(following)
        while leader := min((one for one in leaders if one.next_ms is not None), key=_next_ms, default=None):
            batch = await leader.take_batch()
            for stream in before:
                async for records in stream.take_before(batch[-1].timestamp + 1):
                    yield records
            yield batch
            reached_ms = min((one.next_ms for one in leaders if one.next_ms is not None), default=None)
            for stream in after:
                async for records in stream.take_before(reached_ms):
                    yield records
        for stream in (*before, *after):
            async for records in stream.take_before(None):
                yield records


def _next_ms(stream: _Stream) -> int:
    return 0 if stream.next_ms is None else stream.next_ms
