"""The world between the processes: what time it is, how long messages take, which of them are lost, and what happened.

All chance comes from the seed. `trace` hashes everything that happens, so that two runs can be told apart by one line.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from hashlib import blake2b
from random import Random
from typing import Any, TypeVar

from mesh.core.errors import LogUnavailable
from tests.sim.loop import WORLD, Node, SimLoop

T = TypeVar("T")

EPOCH_MS = 1_795_176_000_000
"""Wall time when a simulation begins."""
TIMEOUT_MS = 2_000
"""After this long without an answer a call to the log fails."""


class Host(Node):
    """A process with its place in the network and its own idea of the time."""

    def __init__(self, name: str, *, skew_ms: int = 0) -> None:
        super().__init__(name)
        self.skew_ms = skew_ms
        self.cut = ""
        """`out`: what it sends does not arrive; `in`: what it is sent does not; `both`."""
        self.silent_since_s: float | None = None
        self.armed: deque[tuple[str, str]] = deque()
        """What is to happen to its next calls of a kind (`append`, `commit`): nothing (""), the question is lost
        (`lose`) or its answer (`lose_reply`), it is done `twice` or comes `late`; or the host does not survive that it
        was done (`die`), or is stopped right then (`freeze`)."""
        self.held: list[Callable[[], None]] = []
        """Messages on their way that come through when the link is mended."""
        self.mended: list[asyncio.Future[None]] = []

    @property
    def silent(self) -> bool:
        """Whether the rest of the world receives nothing from it."""
        return self.dead or self.paused or self.cut in ("out", "both")


class World:
    """See the module. `slow`: a share of messages that take up to `slow_ms` instead of a moment."""

    def __init__(
        self,
        seed: int,
        *,
        slow: float = 0.0,
        slow_ms: float = 0.0,
        dribble: bool = False,
        loop: SimLoop | None = None,
    ) -> None:
        self.loop = loop or SimLoop()
        self.random = Random(f"world {seed}")
        self.over = False
        self.slow = slow
        self.slow_ms = slow_ms
        self.dribble = dribble
        """Fetches bring less than there is."""
        self.sequence = 0
        self.strike: Callable[[Host, str], None] = lambda host, how: None
        """Lets a host die or freeze."""
        self.story: list[str] | None = None
        """Events line by line, if a trace is wanted."""
        self._lines: list[str] = []
        """What happened since it was hashed last."""
        self._hash = blake2b(digest_size=16)
        self._arrivals: dict[tuple[str, object], float] = {}
        self._replies: dict[tuple[str, object], float] = {}

    # ---------------------------------------------------------------------------------------------------------- time

    @property
    def now_ms(self) -> int:
        """True wall time."""
        return EPOCH_MS + int(self.loop.time() * 1000)

    def later(self, delay_ms: float, do: Callable[..., Any], *args: Any) -> None:
        """Something the world does by itself."""
        self.loop.call_later(delay_ms / 1000, do, *args, context=WORLD)

    def latency_s(self) -> float:
        """Return the latency of one message."""
        if self.slow and self.random.random() < self.slow:
            return self.random.random() * self.slow_ms / 1000
        return (0.05 + self.random.random()) / 1000

    # --------------------------------------------------------------------------------------------------------- trace

    def tell(self, *what: object) -> int:
        """Something happened. Answers its number."""
        self.sequence += 1
        line = f"{self.loop.time():.6f} {' '.join(map(str, what))}"
        self._lines.append(line)
        if self.story is not None:
            self.story.append(line)
        return self.sequence

    def trace(self) -> str:
        """Hash of everything that happened."""
        self._hash.update("".join(self._lines).encode("utf-8", "surrogatepass"))
        self._lines.clear()
        return self._hash.hexdigest()

    # ------------------------------------------------------------------------------------------------------- network

    def ask(self, host: Host, channel: object, job: Callable[[], T], *, where: str) -> "asyncio.Future[T]":
        """Send a question over a channel (in order) and hand back the answer, which may fail with LogUnavailable."""
        self.check()
        future: asyncio.Future[T] = self.loop.create_future()
        fate = ""
        kind = "append" if isinstance(channel, tuple) else "commit" if where.endswith(" commit") else ""
        if host.armed and host.armed[0][0] == kind:
            fate = host.armed.popleft()[1]
            self.tell("fault", host.name, kind, fate, channel)
        route = (host.name, channel)
        latency_s = self.latency_s() + (TIMEOUT_MS / 2000 * self.random.random() if fate == "late" else 0.0)
        arrival_s = self._arrivals[route] = max(self._arrivals.get(route, 0.0), self.loop.time() + latency_s)

        def arrive() -> None:
            if host.cut in ("out", "both"):
                if self.random.random() < 0.5:
                    host.held.append(serve)
                return
            serve()

        def serve() -> None:
            try:
                answer = job()
                if fate == "twice":
                    job()
            except Exception as error:  # noqa: BLE001  # the answer is an error
                back(error, None)
            else:
                if fate != "lose_reply":
                    back(None, answer)
                if fate in ("die", "freeze"):
                    self.strike(host, fate)

        def back(error: Exception | None, answer: T | None) -> None:
            reply_s = max(self._replies.get(route, 0.0), self.loop.time() + self.latency_s())
            self._replies[route] = reply_s
            self.loop.call_at(reply_s, settle, error, answer, context=WORLD)

        def settle(error: Exception | None, answer: Any) -> None:
            if future.done() or host.dead or (host.cut in ("in", "both") and not isinstance(error, LogUnavailable)):
                return
            deadline.cancel()
            if error is None:
                future.set_result(answer)
            else:
                future.set_exception(error)

        def expire() -> None:
            settle(LogUnavailable(f"no answer within {TIMEOUT_MS} ms", where=where), None)

        if fate != "lose":
            self.loop.call_at(arrival_s, arrive, context=WORLD)
        deadline = self.loop.call_later(TIMEOUT_MS / 1000, expire, context=WORLD)
        return future

    def check(self) -> None:
        """Raise if the world has ended."""
        if self.over:
            raise WorldOver

    async def moment(self) -> None:
        """Wait as long as a message takes."""
        self.check()
        await asyncio.sleep(self.latency_s())


class WorldOver(BaseException):
    """The simulation has ended; what still runs is taken apart."""
