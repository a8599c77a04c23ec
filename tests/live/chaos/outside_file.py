"""The outside of a fault test on the embedded log: the client, in a process of its own. See `outside`.

Plain JSON is published by the client, which writes to the inbox. CloudEvents, and poison, which the client would
refuse, are written to the ingress topic.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from bench.kills import records_of
from mesh import Mesh
from mesh.adapters.ports import Appended
from mesh.core.protocol.record import NewRecord
from tests.live.chaos.outside import TYPE, Door, Place, Seen, Sent, main


class FileDoor:
    """The client, and its log."""

    def __init__(self, mesh: Mesh) -> None:
        self._mesh = mesh

    async def put(self, topic: str, records: Sequence[Sent]) -> Sequence[Place]:
        """See `Door`."""
        return await asyncio.gather(*(self._one(topic, sent) for sent in records))

    async def _one(self, topic: str, sent: Sent) -> Place:
        if not sent.poison and not sent.headers:
            run = await self._mesh.publish(TYPE, sent.value)
            return (self._mesh.topology.inbox, run.position.partition, run.position.offset)
        (verdict,) = await self._mesh.log.append([NewRecord(topic, sent.key, sent.value, sent.headers)])
        assert isinstance(verdict, Appended), f"{sent.id} was not taken: {verdict}"
        return (topic, verdict.partition, verdict.offset)

    async def read(self, topic: str) -> Sequence[Seen]:
        """See `Door`."""
        found = await records_of(self._mesh.log, topic)
        return [
            Seen((topic, r.partition, r.offset), r.key, None if r.value is None else bytes(r.value), list(r.headers))
            for r in found
        ]


@asynccontextmanager
async def opened(log: str, topology: str) -> AsyncIterator[Door]:
    """Open the door of a URL."""
    async with Mesh.connect(log=log, topology=topology) as mesh:
        yield FileDoor(mesh)


if __name__ == "__main__":
    main(opened)
