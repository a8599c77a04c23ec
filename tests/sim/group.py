"""The coordinator of one consumer group: its members, their partitions, the committed offsets.

There are two ways to rebalance, as brokers and clients differ. `eager` stops all members: each gives up all partitions,
which are then assigned again. Otherwise only partitions that move are revoked. A partition has a new owner only after
the old one gave it up, or was expelled because it sent no heartbeat for a session.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

from mesh.adapters.ports import Commit
from mesh.core.errors import Fenced
from mesh.core.protocol.record import TopicPartition
from tests.sim.world import Host

if TYPE_CHECKING:
    from tests.sim.broker import Broker


class Enrolled(Protocol):
    """The coordinator's state of a member."""

    host: Host
    topics: tuple[str, ...]
    session_timeout_ms: int
    given_up: bool
    """It sends no heartbeat any more."""

    def poke(self) -> None:
        """Something about its partitions has changed."""
        ...


class Group:
    """See the module. `history` holds each commit with its moment, per partition."""

    def __init__(self, broker: "Broker", name: str, *, eager: bool) -> None:
        self.broker = broker
        self.name = name
        self.members: dict[str, Enrolled] = {}
        self.owners: dict[TopicPartition, str] = {}
        self.target: dict[TopicPartition, str] = {}
        self.commits: dict[TopicPartition, Commit] = {}
        self.history: dict[TopicPartition, list[tuple[int, int, str]]] = {}
        """Moment, offset and member of each commit."""
        self._eager = eager
        self._joined = 0

    # ------------------------------------------------------------------------------------------------------ members

    def join(self, member: Enrolled) -> str:
        """Answers the id of the member in this generation."""
        self._joined += 1
        member_id = f"{member.host.name}/{self._joined}"
        self.members[member_id] = member
        self.broker.world.tell(self.name, "joined", member_id)
        if member.host.silent:  # died on its way here
            self.listen_for(member.host)
        if member.given_up:
            self.miss(member)
        self._rebalance()
        return member_id

    def miss(self, member: Enrolled) -> None:
        """A member that gave up is expelled when its session is over."""
        for member_id, other in self.members.items():
            if other is member:
                self.broker.world.later(member.session_timeout_ms, self.leave, member_id)

    def leave(self, member_id: str) -> None:
        """A member says farewell, or is expelled."""
        member = self.members.pop(member_id, None)
        if member is None:
            return
        self.broker.world.tell(self.name, "left", member_id)
        self.broker.world.later(self.broker.world.latency_s() * 1000, member.poke)
        self.owners = {tp: owner for tp, owner in self.owners.items() if owner != member_id}
        self._rebalance()

    def release(self, member_id: str, partitions: frozenset[TopicPartition]) -> None:
        """A member has let go."""
        for tp in partitions:
            if self.owners.get(tp) == member_id:
                del self.owners[tp]
        self._hand_out()

    def listen_for(self, host: Host) -> None:
        """A host has fallen silent: expel its members unless they are heard of within their session."""
        since = host.silent_since_s
        for member_id, member in self.members.items():
            if member.host is host:
                self.broker.world.later(member.session_timeout_ms, self._missed, member_id, since)

    def _missed(self, member_id: str, since: float | None) -> None:
        member = self.members.get(member_id)
        if member is not None and member.host.silent and member.host.silent_since_s == since:
            self.broker.world.tell(self.name, "expelled", member_id)
            self.leave(member_id)

    # ---------------------------------------------------------------------------------------------------- partitions

    def owned(self, member_id: str) -> set[TopicPartition] | None:
        """Return the partitions of a member; None: it is not a member."""
        if member_id not in self.members:
            return None
        return {tp for tp, owner in self.owners.items() if owner == member_id}

    def kept(self, member_id: str) -> set[TopicPartition]:
        """Return the partitions that a member owns and may keep."""
        return {tp for tp, owner in self.owners.items() if owner == member_id == self.target.get(tp)}

    def _rebalance(self) -> None:
        self.target = {} if self._eager and self.owners else self._shares()
        self._hand_out()

    def _hand_out(self) -> None:
        if self._eager and not self.owners and not self.target:
            self.target = self._shares()
        for tp, member_id in self.target.items():
            if tp not in self.owners:
                self.owners[tp] = member_id
        for member in list(self.members.values()):
            self.broker.world.later(self.broker.world.latency_s() * 1000, member.poke)

    def _shares(self) -> dict[TopicPartition, str]:
        """Even shares; who has something keeps it where that is even."""
        if not self.members:
            return {}
        topics = sorted({topic for member in self.members.values() for topic in member.topics})
        places = [TopicPartition(t, n) for t in topics for n in range(len(self.broker.topics.get(t, ())))]
        least, more = divmod(len(places), len(self.members))
        shares: dict[TopicPartition, str] = {}
        counts = dict.fromkeys(self.members, 0)
        for tp in places:
            owner = self.owners.get(tp)
            if owner in self._readers(tp) and (counts[owner] < least or (counts[owner] == least and more > 0)):
                more -= counts[owner] == least
                counts[owner] += 1
                shares[tp] = owner
        for tp in places:
            if tp not in shares:
                poorest = min(self._readers(tp), key=counts.__getitem__)
                counts[poorest] += 1
                shares[tp] = poorest
        return shares

    def _readers(self, tp: TopicPartition) -> list[str]:
        """Members that read this topic: two versions of a service may read different ones."""
        return [id for id, member in self.members.items() if tp.topic in member.topics]

    # ------------------------------------------------------------------------------------------------------- commits

    def commit(self, member_id: str, commits: Mapping[TopicPartition, Commit]) -> None:
        """Store places, all or (Fenced) none."""
        for tp in commits:
            if member_id not in self.members or self.owners.get(tp) != member_id:
                self.broker.world.tell(self.name, "fenced", member_id, tp.partition)
                raise Fenced(f"commit of {tp[0]}:{tp[1]}, which is not ours", where=f"group {self.name}")
        self._store(member_id, commits)

    def commit_idle(self, commits: Mapping[TopicPartition, Commit], by: str) -> None:
        """Store places while there is no member, else Fenced."""
        if self.members:
            raise Fenced("the group has members", where=f"group {self.name}")
        self._store(by, commits)

    def _store(self, member_id: str, commits: Mapping[TopicPartition, Commit]) -> None:
        for tp, place in commits.items():
            at = self.broker.world.tell(self.name, "commits", tp[0], tp[1], place.offset, member_id, place.metadata)
            self.commits[tp] = place
            self.history.setdefault(tp, []).append((at, place.offset, member_id))
