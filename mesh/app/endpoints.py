"""What a process answers over HTTP: `/metrics`, `/healthz` (is it alive?) and `/readyz` (does it do its work?).

An orchestrator must not be restarted because the log is away, nor get no probe: `/healthz` fails only when the process
cannot recover by itself. `/readyz` names everything that is missing.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Final, NamedTuple

import orjson

from mesh.adapters.distribution import version
from mesh.adapters.exposition.http_server import Reply
from mesh.adapters.exposition.prometheus_text import CONTENT_TYPE, PrometheusText
from mesh.adapters.ports import Board
from mesh.app.process import Process
from mesh.app.process_samples import samples
from mesh.core.errors import MeshError
from mesh.core.topology.model import Topology

REACH_MS_MAX: Final = 1_000
"""A log or board that does not answer within this counts as unreachable."""
JSON: Final = "application/json"


class Missing(NamedTuple):
    """What a process lacks to do its work."""

    what: str
    reason: str


class Endpoints:
    """The answers of one process. `process` and `board` change when an outage of the log has ended."""

    def __init__(self, topology: Topology, further: Callable[[], Iterable[Missing]] = tuple) -> None:
        """`further`: what is missing outside of the process, such as its children."""
        self.process: Process | None = None
        self.board: Board | None = None
        self.reason = "the services have not started yet"
        """Why there is no process."""
        self._topology, self._further = topology, further
        self._text = PrometheusText(lambda: samples(self.process, topology, version()))

    @property
    def answers(self) -> Mapping[str, Callable[[], Awaitable[Reply]]]:
        """Path → the function that answers it."""
        return {"/metrics": self.metrics, "/healthz": self.healthz, "/readyz": self.readyz}

    async def metrics(self) -> Reply:
        """Return all samples in the text format of Prometheus."""
        return Reply(200, CONTENT_TYPE, self._text.write())

    async def healthz(self) -> Reply:
        """Return 200 while the process works or may recover by itself, else 503."""
        ended = [] if self.process is None else sorted(self.process.ended)
        is_alive = not ended or len(ended) < len(self.process.services if self.process else ())
        return _reply(200 if is_alive else 503, {"alive": is_alive, **({"ended": ended} if ended else {})})

    async def readyz(self) -> Reply:
        """Return 200 if every service holds its partitions and log and board answer, else 503 with what is missing."""
        missing = [*await self._missing(), *self._further()]
        holdings = [] if self.process is None else self.process.holdings()
        body = {
            "ready": not missing,
            "missing": [{"what": each.what, "reason": each.reason} for each in missing],
            "partitions": {each.group: each.partitions for each in holdings},
        }
        return _reply(503 if missing else 200, body)

    async def _missing(self) -> list[Missing]:
        process = self.process
        if process is None:
            return [Missing("services", self.reason)]
        if process.stopping:
            return [Missing("services", "the process drains and ends")]
        found = [Missing(name, "it has ended") for name in sorted(process.ended)]
        found += [
            Missing(f"assignment of {each.group}", "it has not joined its group, or restores its partitions")
            for each in process.holdings()
            if not each.settled
        ]
        reached = await asyncio.gather(
            _unreachable("log", process.log.bounds(self._topology.inbox)),
            *([] if self.board is None else [_unreachable("board", self.board.incarnation())]),
        )
        return found + [each for each in reached if each is not None]


async def _unreachable(what: str, asked: Awaitable[object]) -> Missing | None:
    try:
        async with asyncio.timeout(REACH_MS_MAX / 1_000):
            await asked
    except TimeoutError:
        return Missing(what, f"no answer within {REACH_MS_MAX} ms")
    except (MeshError, OSError) as error:
        return Missing(what, str(error))
    return None


def _reply(status: int, body: Mapping[str, object]) -> Reply:
    return Reply(status, JSON, orjson.dumps(body) + b"\n")
