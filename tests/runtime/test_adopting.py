"""Which topology a partition of the inbox is at: what the inbox says, whichever process owns it."""

from mesh.adapters.clock import SystemClock
from mesh.adapters.ports import Commit, Log
from mesh.core.protocol.codec import read_event
from mesh.core.protocol.event import Event
from mesh.runtime.topology_store import TopologyStore
from tests.runtime.checkpoint_kit import INBOX, NEW, OLD, log, requested
from tests.runtime.test_checkpoint_manager import manager, note_at
from tests.services.conftest import read_all

__all__ = ["log"]


async def test_a_new_topology_begins_where_the_inbox_says_so_and_open_runs_keep_theirs(log: Log) -> None:
    await TopologyStore(log, OLD, SystemClock()).keep()
    await requested(log, "r1", "r2", "r3")
    note = await note_at(log, 1)
    made, _ = await manager(log, topology=NEW)
    state, _ = await made.restore(INBOX, Commit(2, note.text()))
    assert {run.topology for run in state.runs.values()} == {OLD.digest}, "the tail was decided under the old one"
    assert state.topology == OLD, "what lies in the inbox before the change is decided under it, too"
    await requested(log, "r4")
    for commit in (Commit(2, note.text()), Commit(5, made.metadata(INBOX, 2)), None):  # None: all is decided again
        for mesh in (OLD, NEW):  # whoever folds it
            again, start = await (await manager(log, topology=mesh))[0].restore(INBOX, commit)
            again.adopt(NEW)
            again.adopt(OLD)
            for record in (await read_all(log, OLD.inbox))[start:5]:
                again.step(record)
            opened = {id: again.runs[id].topology for id in again.runs}
            assert opened == {**dict.fromkeys(("r1", "r2", "r3"), OLD.digest), "r4": NEW.digest}


async def test_an_owner_with_another_topology_says_so_in_the_inbox_and_the_same_one_says_nothing(log: Log) -> None:
    await TopologyStore(log, OLD, SystemClock()).keep()
    note = await note_at(log, 0)
    for mesh, found in ((OLD, []), (NEW, [NEW.digest])):
        await (await manager(log, topology=mesh))[0].restore(INBOX, Commit(0, note.text()))
        events = [read_event(record) for record in await read_all(log, OLD.inbox)]
        adopted = [event.topology for event in events if isinstance(event, Event)]
        assert adopted == found
