"""What became of letters that were sent again: waited for, or looked up later."""

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from mesh.adapters.ports import Clock, Log
from mesh.core.dead_letters.redrive_log import DONE, IN_VAIN, RedriveEntry
from mesh.core.dead_letters.redrive_plan import TASK
from mesh.core.dead_letters.redrive_result import RedriveResults
from mesh.core.errors import WaitTimeout
from mesh.core.protocol.record import TopicPartition
from mesh.core.topology.model import Topology
from mesh.operations.dead_letters.redrive_journal import Journal
from mesh.operations.dead_letters.run_context import heard, in_vain
from mesh.runtime.log_reader import bounds_since, read_records

CLOCKS_APART_MS_MAX: Final = 60_000
"""Between the clocks of the brokers; and the ledger's first entry may bear the time of this machine."""
POLL_RECORDS_MAX: Final = 2_000
POLL_WAIT_MS: Final = 200
LOOK_AFTER_MS: Final = 300
"""So long after the last news it is asked whether a run did nothing with what it heard; twice as long each time that
the inbox was read for it."""
LOOK_AFTER_MS_MAX: Final = 20_000


def nothing(_: int) -> None:
    """Nobody wants to know how far it is."""


class FollowUp:
    """What followed from redrives of one mesh."""

    def __init__(self, log: Log, topology: Topology, journal: Journal, clock: Clock) -> None:
        self._log = log
        self._topology = topology
        self._journal = journal
        self._clock = clock

    async def wait(
        self,
        sent: Sequence[RedriveEntry],
        begin: Mapping[TopicPartition, int],
        *,
        timeout_s: float,
        told: Callable[[int], None] = nothing,
    ) -> list[RedriveEntry]:
        """Wait until it is known what became of all of these, and note it. Raises WaitTimeout.

        `begin`: where outcomes and dead letters ended before any of them was sent.
        """
        aftermath = RedriveResults(sent, self._topology)
        done: list[RedriveEntry] = []
        now_ms = self._clock.monotonic_ms
        deadline_ms, pause_ms, open_keys = now_ms() + timeout_s * 1_000, LOOK_AFTER_MS, {e.key for e in sent}
        look_ms = now_ms() + pause_ms
        reader = self._log.reader(begin)
        try:
            while aftermath.waiting:
                left_ms = deadline_ms - now_ms()
                if left_ms <= 0:
                    raise await self._timeout(len(sent), list(aftermath.waiting.values()), timeout_s)
                results: dict[str, str] = {}
                wait_ms = max(1, min(POLL_WAIT_MS, int(left_ms)))
                for record in await reader.poll(records_max=POLL_RECORDS_MAX, wait_ms=wait_ms):
                    results |= aftermath.take(record)
                if results:
                    look_ms = now_ms() + pause_ms
                elif now_ms() >= look_ms:
                    unknown = len(open_keys)
                    results = await self._look(aftermath, open_keys)
                    pause_ms = min(pause_ms * (1 + (len(open_keys) < unknown)), LOOK_AFTER_MS_MAX)
                    look_ms = now_ms() + pause_ms
                if results:
                    done += await self._note(sent, results)
                    told(len(results))
        finally:
            await reader.close()
        return done

    async def results(self, sent: Sequence[RedriveEntry]) -> dict[str, str]:
        """What became of these, where the log tells, by their keys. Writes nothing."""
        if not sent:
            return {}
        aftermath, results = RedriveResults(sent, self._topology), dict[str, str]()
        since_ms = min(entry.at_ms for entry in sent) - CLOCKS_APART_MS_MAX
        for topic in (self._topology.outcomes, self._topology.dead):
            async for record in read_records(self._log, topic, await bounds_since(self._log, topic, since_ms)):
                results |= aftermath.take(record)
        repeated = {key for key, entry in aftermath.waiting.items() if entry.n > 1}  # a first one finds its task
        return results | await self._look(aftermath, repeated)

    async def _look(self, aftermath: RedriveResults, keys: set[str]) -> dict[str, str]:
        """Which of these a run heard and did nothing with: no outcome will tell it. Each is looked at once, when it
        was heard, and leaves `keys`."""
        asked = [e for key, e in aftermath.waiting.items() if key in keys and e.way == TASK]
        known = await heard(self._log, self._topology, asked) if asked else []
        keys -= {entry.key for entry in known}
        vain = await in_vain(self._log, self._topology, known)
        return aftermath.told(dict.fromkeys(vain, IN_VAIN))

    async def _note(self, sent: Sequence[RedriveEntry], results: Mapping[str, str]) -> list[RedriveEntry]:
        at_ms = self._log.now_ms()
        ended = [e._replace(state=DONE, result=results[e.key], at_ms=at_ms) for e in sent if e.key in results]
        await self._journal.note(ended)
        return ended

    async def _timeout(self, number: int, left: Sequence[RedriveEntry], timeout_s: float) -> WaitTimeout:
        inbox = [entry for entry in left if entry.topic == self._topology.inbox]
        unheard = len(inbox) - len(await heard(self._log, self._topology, inbox))
        if unheard:
            remedy = f"nobody has read {unheard} of them: is `mesh up` running?"
        else:
            remedy = "`mesh run show ID` tells what they wait for"
        return WaitTimeout(
            f"of {number} letters {len(left)} have not come to an end within {timeout_s:g} s; they go on",
            where=self._topology.outcomes,
            remedy=f"`mesh dead list` tells later what became of them; {remedy}",
        )
