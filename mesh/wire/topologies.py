"""mesh.topologies: every topology under which runs were opened, by digest. One partition, compacted, never emptied."""

from collections.abc import Collection
from contextlib import aclosing

from mesh.core.errors import LogUnavailable, NotRestorable
from mesh.core.pin import pinned_bytes, pinned_topology
from mesh.core.record import NewRecord, TopicPartition
from mesh.core.topology import Topology
from mesh.wire.diagnostics import diagnostics
from mesh.wire.ports import Appended, Clock, Log
from mesh.wire.span import read_span

_log = diagnostics("topologies")


class Topologies:
    """The topologies of one mesh. `current` is that of this process."""

    def __init__(self, log: Log, current: Topology, clock: Clock) -> None:
        self._log = log
        self._clock = clock
        self._topic = current.topologies
        self._current = current
        self._found = {current.digest: current}
        self._read = 0
        """Offset up to which the topic was read."""

    async def keep(self) -> None:
        """Put the current one there, if it is not. Raises LogUnavailable."""
        self._found.pop(self._current.digest)
        await self._follow()
        there = self._current.digest in self._found
        self._found[self._current.digest] = self._current
        if there:
            return
        record = NewRecord(self._topic, self._current.digest.encode(), pinned_bytes(self._current), (), 0)
        (verdict,) = await self._log.append([record])
        if not isinstance(verdict, Appended):
            raise LogUnavailable(
                f"the log refused the topology: {verdict.message}",
                where=f"{self._log.url} {self._topic}",
                remedy="Grant the right to write to it, or raise its max.message.bytes",
            )

    async def find(self, digests: Collection[str]) -> dict[str, Topology]:
        """Topologies by digest. Raises NotRestorable naming those that are not there, LogUnavailable."""
        if not self._found.keys() >= set(digests):
            await self._follow()
        missing = sorted(set(digests) - self._found.keys())
        if missing:
            raise NotRestorable(
                f"topology {', '.join(missing)} is not kept, and runs were opened under it",
                where=f"{self._log.url} {self._topic}",
                remedy="Start once with the topics.yaml that has this digest (`mesh check` prints it)",
            )
        return {digest: self._found[digest] for digest in sorted(digests)}

    async def _follow(self) -> None:
        """Read what was added since the last time."""
        bounds = (await self._log.bounds(self._topic))[0]
        start = max(self._read, bounds.start)
        place = TopicPartition(self._topic, 0)
        async with aclosing(read_span(self._log, self._clock, place, start, bounds.end)) as span:
            async for records in span:
                for record in records:
                    digest = (record.key or b"").decode("utf-8", "replace")
                    try:
                        self._found.setdefault(digest, pinned_topology(record.value or b"", digest))
                    except ValueError as error:
                        _log.warning("a kept topology cannot be read", digest=digest, reason=str(error))
        self._read = bounds.end
