"""The clocks of the brokers, which stamp every record (`LogAppendTime`): they drift, and are set forward and back.

A partition has the clock of its leader. Timestamps of a partition fall when that clock is set back, as Kafka's do.
"""

from collections.abc import Sequence

from mesh.core.protocol.record import TopicPartition
from tests.sim.world import EPOCH_MS, World

BROKERS = 3


class BrokerClocks:
    """See the module. `drifts`: by which share each clock runs fast; negative: slow."""

    def __init__(self, world: World, drifts: Sequence[float] = (0.0,) * BROKERS) -> None:
        self._world = world
        self._drifts = tuple(drifts)
        self._steps_ms = [0] * len(self._drifts)
        self.moved_ms = 0
        """How far the clocks were set, all steps of all brokers together."""

    @property
    def apart_ms(self) -> int:
        """Return the largest difference of two readings of the brokers' clocks, besides the time between them."""
        drifted_ms = (self._world.now_ms - EPOCH_MS) * (max(self._drifts) - min(self._drifts))
        return self.moved_ms + int(drifted_ms)

    def now_ms(self, place: TopicPartition) -> int:
        """The clock of the leader of a partition."""
        leader = (sum(place.topic.encode()) + place.partition) % len(self._drifts)
        now_ms = self._world.now_ms
        return now_ms + self._steps_ms[leader] + int((now_ms - EPOCH_MS) * self._drifts[leader])

    def set(self, broker: int | None, by_ms: int) -> None:
        """Set the clock of a broker, None: of all, forward; a negative step sets it back."""
        for number in range(len(self._drifts)) if broker is None else (broker,):
            self._steps_ms[number] += by_ms
        self.moved_ms += abs(by_ms)
        self._world.tell("clock of", "all brokers" if broker is None else f"broker {broker}", "is set", by_ms)
