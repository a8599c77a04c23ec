"""An HTTP server in the event loop of a process, for what operators and their tools ask it.

This is the only importer of starlette and uvicorn. A request is answered by the loop that does the work, so an answer
shows that the loop turns.
"""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Final, NamedTuple

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from uvicorn import Config, Server

from mesh.core.errors import ConfigInvalid

KEEP_ALIVE_S: Final = 75
"""Longer than the usual interval of scrapes, so that a scraper keeps its connection."""
REQUESTS_MAX: Final = 64
"""Requests at once; further ones are answered with 503."""
STOP_S_MAX: Final = 1


class Reply(NamedTuple):
    """The answer to a request."""

    status: int
    content_type: str
    body: bytes


class _Server(Server):
    """uvicorn without its handling of signals: the process handles them."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield


def listen(host: str, port: int) -> socket.socket:
    """Open a port. Raises ConfigInvalid if it cannot be opened."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    opened = socket.socket(family, socket.SOCK_STREAM)
    try:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.bind((host, port))
        opened.listen()
    except OSError as error:
        opened.close()
        raise ConfigInvalid(
            f"the port cannot be opened: {error.strerror or error}",
            where="setting 'http'",
            expected="a free port of this machine",
            got=f"{host}:{port}",
            remedy="Name another port with --http",
        ) from error
    return opened


@asynccontextmanager
async def served(opened: socket.socket, answers: Mapping[str, Callable[[], Awaitable[Reply]]]) -> AsyncIterator[None]:
    """Answer GET and HEAD of these paths on an open port inside the block."""
    app = Starlette(routes=[Route(path, _endpoint(answer), methods=["GET"]) for path, answer in answers.items()])
    config = Config(
        app,
        log_config=None,
        access_log=False,
        lifespan="off",
        ws="none",
        http="h11",
        server_header=False,
        limit_concurrency=REQUESTS_MAX,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=STOP_S_MAX,
    )
    server = _Server(config)
    serving = asyncio.get_running_loop().create_task(server.serve(sockets=[opened]), name="http")
    try:
        yield
    finally:
        server.should_exit = True
        await serving


def _endpoint(answer: Callable[[], Awaitable[Reply]]) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        reply = await answer()
        return Response(reply.body, reply.status, {"cache-control": "no-store"}, reply.content_type)

    return endpoint
