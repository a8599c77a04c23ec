"""The proxy of the fault tests bends a connection as it is told, and loses nothing that TCP would not lose."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.live.chaos.proxy import Proxy

PATIENCE_S = 10


class Echo:
    """A server that answers every line with itself and notes what reached it."""

    def __init__(self) -> None:
        self.heard: list[bytes] = []
        self.arrived = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                self.heard.append(line)
                self.arrived.set()
                writer.write(line)
        except ConnectionError:
            pass  # the client was reset
        finally:
            writer.close()


@asynccontextmanager
async def proxied() -> AsyncIterator[tuple[Echo, Proxy]]:
    echo = Echo()
    server = await asyncio.start_server(echo.serve, "127.0.0.1", 0)
    try:
        async with Proxy(server.sockets[0].getsockname()[1]) as proxy, asyncio.timeout(PATIENCE_S):
            yield echo, proxy
    finally:
        server.close()


async def test_bytes_pass_both_ways_and_the_end_too() -> None:
    async with proxied() as (_, proxy):
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(b"one\ntwo\n")
        assert [await reader.readline() for _ in range(2)] == [b"one\n", b"two\n"]
        writer.write_eof()
        assert await reader.read() == b""
        writer.close()


async def test_latency_is_added_each_way_and_keeps_the_order() -> None:
    async with proxied() as (_, proxy):
        proxy.latency_ms, proxy.jitter_ms = 50, 50
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        lines = [b"%d\n" % n for n in range(20)]
        for line in lines:
            writer.write(line)
            await asyncio.sleep(0.002)
        assert [await reader.readline() for _ in lines] == lines
        proxy.jitter_ms = 0
        began = time.monotonic()
        writer.write(b"x\n")
        await reader.readline()
        assert time.monotonic() - began >= 0.1
        writer.close()


async def test_what_is_held_on_its_way_up_arrives_on_heal_even_if_its_sender_has_gone() -> None:
    async with proxied() as (echo, proxy):
        _, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        proxy.hold(up=True)
        writer.write(b"late\n")
        await writer.drain()
        writer.close()
        await writer.wait_closed()
        assert echo.heard == []
        proxy.heal()
        await echo.arrived.wait()
        assert echo.heard == [b"late\n"]


async def test_replies_that_are_held_are_late_while_requests_arrive() -> None:
    async with proxied() as (echo, proxy):
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        proxy.hold(down=True)
        writer.write(b"asked\n")
        await echo.arrived.wait()
        answer = asyncio.ensure_future(reader.readline())
        done, _ = await asyncio.wait([answer], timeout=0.1)
        assert not done
        proxy.heal()
        assert await answer == b"asked\n"
        writer.close()


async def test_a_dropped_reply_ends_the_connection_once_after_the_request_arrived() -> None:
    async with proxied() as (echo, proxy):
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        proxy.drop_reply.set()
        writer.write(b"done\n")
        assert await reader.read() == b""
        assert echo.heard == [b"done\n"]
        assert proxy.dropped == 1
        writer.close()
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(b"again\n")
        assert await reader.readline() == b"again\n"
        writer.close()


async def test_a_reset_is_one_and_new_connections_pass() -> None:
    async with proxied() as (_, proxy):
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(b"x\n")
        await reader.readline()
        assert proxy.connections == 1
        proxy.reset_all()
        with pytest.raises(ConnectionResetError):
            await reader.readline()
        writer.close()
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(b"y\n")
        assert await reader.readline() == b"y\n"
        assert proxy.resets == 1
        writer.close()
