"""Wait for the results of redrives, or look them up later."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import aclosing
from typing import Final

from mesh.adapters.ports import Clock, Log
from mesh.core.dead_letters.redrive_log import DONE, NOTHING_TO_REDRIVE, RedriveEntry
from mesh.core.dead_letters.redrive_plan import TASK
from mesh.core.dead_letters.redrive_result import RedriveResults
from mesh.core.errors import WaitTimeout
from mesh.core.protocol.record import TopicPartition
from mesh.core.topology.model import Topology
from mesh.operations.dead_letters.redrive_journal import Journal
from mesh.operations.dead_letters.run_context import consumed, redrives_without_effect
from mesh.operations.dead_letters.sending import no_progress
from mesh.runtime.log_reader import bounds_between, read_records

CLOCKS_APART_MS_MAX: Final = 60_000
"""Limit of the difference between clocks of brokers and of this machine, which may date the ledger's first entry."""
POLL_RECORDS_MAX: Final = 2_000
POLL_WAIT_MS: Final = 200
LOOK_AFTER_MS: Final = 300
"""Pause after the last result before the inbox is searched for ignored redrives; it doubles with each search."""
LOOK_AFTER_MS_MAX: Final = 20_000


class FollowUp:
    """Results of the redrives of one mesh."""

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
        on_progress: Callable[[int], None] = no_progress,
    ) -> list[RedriveEntry]:
        """Wait for the results of these redrives, and note them in the ledger. Raises WaitTimeout.

        `begin`: ends of outcomes and dead letters before any redrive was sent. `on_progress`: receives the number of
        results.
        """
        pending = RedriveResults(sent, self._topology)
        done: list[RedriveEntry] = []
        now_ms = self._clock.monotonic_ms
        deadline_ms, pause_ms, open_keys = now_ms() + timeout_s * 1_000, LOOK_AFTER_MS, {e.key for e in sent}
        look_ms = now_ms() + pause_ms
        reader = self._log.reader(begin)
        try:
            while pending.waiting:
                left_ms = deadline_ms - now_ms()
                if left_ms <= 0:
                    raise await self._timeout(len(sent), list(pending.waiting.values()), timeout_s)
                results: dict[str, str] = {}
                wait_ms = max(1, min(POLL_WAIT_MS, int(left_ms)))
                for record in await reader.poll(records_max=POLL_RECORDS_MAX, wait_ms=wait_ms):
                    results |= pending.take(record)
                if results:
                    look_ms = now_ms() + pause_ms
                elif now_ms() >= look_ms:
                    unknown = len(open_keys)
                    results = await self._look(pending, open_keys)
                    pause_ms = min(pause_ms * (1 + (len(open_keys) < unknown)), LOOK_AFTER_MS_MAX)
                    look_ms = now_ms() + pause_ms
                if results:
                    done += await self._note(sent, results)
                    on_progress(len(results))
        finally:
            await reader.close()
        return done

    async def results(self, sent: Sequence[RedriveEntry]) -> dict[str, str]:
        """Return the results of these redrives that are on the log, by key. Writes nothing."""
        if not sent:
            return {}
        pending, results = RedriveResults(sent, self._topology), dict[str, str]()
        since_ms = min(entry.at_ms for entry in sent) - CLOCKS_APART_MS_MAX
        for topic in (self._topology.outcomes, self._topology.dead):
            async with aclosing(
                read_records(self._log, topic, await bounds_between(self._log, topic, since_ms))
            ) as stored:
                async for record in stored:
                    results |= pending.take(record)
        repeated = {
            key for key, entry in pending.waiting.items() if entry.n > 1
        }  # a first redrive always finds its task
        return results | await self._look(pending, repeated)

    async def _look(self, pending: RedriveResults, keys: set[str]) -> dict[str, str]:
        """Find redrives that their run consumed and ignored: no outcome reports them. Each is looked at once, after it
        was consumed, and then removed from `keys`."""
        candidates = [e for key, e in pending.waiting.items() if key in keys and e.way == TASK]
        known = await consumed(self._log, self._topology, candidates) if candidates else []
        keys -= {entry.key for entry in known}
        without_effect = await redrives_without_effect(self._log, self._topology, known)
        return pending.resolve(dict.fromkeys(without_effect, NOTHING_TO_REDRIVE))

    async def _note(self, sent: Sequence[RedriveEntry], results: Mapping[str, str]) -> list[RedriveEntry]:
        at_ms = self._log.now_ms()
        ended = [e._replace(state=DONE, result=results[e.key], at_ms=at_ms) for e in sent if e.key in results]
        await self._journal.note(ended)
        return ended

    async def _timeout(self, number: int, left: Sequence[RedriveEntry], timeout_s: float) -> WaitTimeout:
        inbox = [entry for entry in left if entry.topic == self._topology.inbox]
        unread = len(inbox) - len(await consumed(self._log, self._topology, inbox))
        if unread:
            remedy = f"{unread} of them are unread: is `mesh up` running?"
        else:
            remedy = "`mesh run show ID` shows what they wait for"
        return WaitTimeout(
            f"{len(left)} of {number} letters have no result after {timeout_s:g} s; they go on",
            where=self._topology.outcomes,
            remedy=f"`mesh dead list` shows their results later; {remedy}",
        )
