"""Restore takes the checkpoint that was written last, whoever wrote it, not the one that the commit names."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from mesh.adapters.ports import Commit
from mesh.core.protocol.record import TopicPartition
from mesh.core.state.checkpoint import CommitNote, Extent, read_note
from mesh.runtime.checkpoint_manager import CheckpointManager
from mesh.runtime.checkpoint_store import NAME
from tests.sim.planted.patching import swapped


@contextmanager
def patch() -> Iterator[None]:
    """Plant it."""
    real: Any = CheckpointManager.restore

    async def restore(self: Any, partition: TopicPartition, commit: Commit | None) -> Any:
        if commit is not None and commit.metadata:
            written = self._log._broker.topics[self._topology.checkpoints][partition.partition]
            records = [r for r in written.records if r.offset >= written.start]
            first = next((r.offset for r in reversed(records) if dict(r.headers).get(NAME) == b""), None)
            note: CommitNote = read_note(commit.metadata)
            if first is not None:
                mine = [r for r in records if r.offset == first or dict(r.headers).get(NAME) == b"%d" % first]
                latest = Extent(first, mine[-1].offset, len(mine))
                chain = tuple(place for place in note.checkpoint if place.last < first)
                commit = Commit(commit.offset, replace(note, checkpoint=(*chain, latest)).text())
        return await real(self, partition, commit)

    with swapped(CheckpointManager, "restore", restore):
        yield
