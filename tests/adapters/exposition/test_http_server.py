"""The HTTP server in the loop of a process."""

import asyncio
import signal

import pytest

from mesh.adapters.exposition.http_server import Reply, listen, served
from mesh.core.errors import ConfigInvalid


async def ask(port: int, request: str) -> tuple[str, bytes]:
    """Status line and body of the answer to `GET /path`."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"{request} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n".encode())
    async with asyncio.timeout(30):
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    await writer.wait_closed()
    return head.split(b"\r\n")[0].decode(), body


async def answer() -> Reply:
    return Reply(503, "application/json", b"{}")


async def test_it_answers_what_it_was_given_and_nothing_else() -> None:
    opened = listen("127.0.0.1", 0)
    port = opened.getsockname()[1]
    async with served(opened, {"/readyz": answer}):
        assert await ask(port, "GET /readyz") == ("HTTP/1.1 503 Service Unavailable", b"{}")
        assert (await ask(port, "HEAD /readyz"))[1] == b""
        assert (await ask(port, "GET /other"))[0] == "HTTP/1.1 404 Not Found"
        assert (await ask(port, "POST /readyz"))[0] == "HTTP/1.1 405 Method Not Allowed"
    with pytest.raises(ConnectionError):
        await ask(port, "GET /readyz")


async def test_it_leaves_signals_to_the_process() -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    opened = listen("127.0.0.1", 0)
    async with served(opened, {"/readyz": answer}):
        await ask(opened.getsockname()[1], "GET /readyz")
        assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


async def test_a_port_that_is_taken_is_said() -> None:
    opened = listen("127.0.0.1", 0)
    port = opened.getsockname()[1]
    with opened, pytest.raises(ConfigInvalid, match=f"127.0.0.1:{port}"):
        listen("127.0.0.1", port)
