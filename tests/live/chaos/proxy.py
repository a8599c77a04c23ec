"""A TCP proxy that can be slow, half open, forgetful or rude. One server behind it, all clients share its faults."""

import asyncio
import random
import socket
import struct
from collections.abc import Awaitable, Callable
from typing import Self

CHUNK_BYTES = 65_536
Chunks = asyncio.Queue[tuple[float, bytes]]
"""When to deliver, and what; no bytes are the end."""


class Proxy:
    """Listens on `port` of 127.0.0.1 (0: any) and passes bytes on to `target`. Faults are set while it runs."""

    def __init__(self, target: int, *, port: int = 0, seed: int = 0) -> None:
        self.target = target
        self.port = port
        self.latency_ms = 0.0
        """Added to every chunk, each way, give or take `jitter_ms`. Chunks keep their order."""
        self.jitter_ms = 0.0
        self.drop_reply = asyncio.Event()
        """When set: the next request is passed on, its reply swallowed, the connection ended. Clears itself."""
        self.dropped = 0
        self.resets = 0
        self._passes_up, self._passes_down = asyncio.Event(), asyncio.Event()
        self._passes_up.set()
        self._passes_down.set()
        self._random = random.Random(seed)
        self._server: asyncio.Server | None = None
        self._ways: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        tasks = list(self._ways)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    @property
    def connections(self) -> int:
        """Clients connected right now."""
        return len(self._ways)

    def hold(self, *, up: bool = False, down: bool = False) -> None:
        """Half open: bytes towards the server (`up`) or from it (`down`) no longer arrive. New connections neither.

        They are not lost: as TCP would after the way is mended, they arrive on `heal`, also those of clients that
        have hung up meanwhile.
        """
        (self._passes_up.clear if up else self._passes_up.set)()
        (self._passes_down.clear if down else self._passes_down.set)()

    def heal(self) -> None:
        """No more faults."""
        self.hold()
        self.latency_ms = self.jitter_ms = 0.0
        self.drop_reply.clear()

    def reset_all(self) -> None:
        """End every connection by RST."""
        for task, writer in list(self._ways.items()):
            opened: socket.socket = writer.get_extra_info("socket")
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
            task.cancel()
            self.resets += 1

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._ways[task] = writer
        try:
            await self._join(reader, writer)
        except asyncio.CancelledError:
            pass  # reset, or the proxy ends: no task waits for this one
        finally:
            writer.close()
            del self._ways[task]

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass bytes both ways until a side hangs up."""
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.target)
            try:
                async with asyncio.TaskGroup() as group:
                    for source, sink, passing in ((reader, far_writer, self._up), (far_reader, writer, self._down)):
                        chunks: Chunks = asyncio.Queue()
                        group.create_task(self._take(source, chunks))
                        group.create_task(self._deliver(chunks, sink, passing))
            finally:
                far_writer.close()
        except* (OSError, EOFError):
            pass  # one side closed, or does not listen: the other side notices by the end of its connection

    async def _take(self, reader: asyncio.StreamReader, chunks: Chunks) -> None:
        """Read on at once, whatever is delivered later: a delay must not become a narrow way."""
        data = b"begin"
        while data:
            data = await reader.read(CHUNK_BYTES)
            delay_ms = self.latency_ms + self._random.uniform(-self.jitter_ms, self.jitter_ms)
            chunks.put_nowait((asyncio.get_running_loop().time() + max(0.0, delay_ms) / 1000, data))

    async def _deliver(
        self, chunks: Chunks, writer: asyncio.StreamWriter, passing: Callable[[], Awaitable[None]]
    ) -> None:
        data = b"begin"
        while data:
            due_s, data = await chunks.get()
            if (left_s := due_s - asyncio.get_running_loop().time()) > 0:
                await asyncio.sleep(left_s)
            await passing()
            if data:
                writer.write(data)
                await writer.drain()
        writer.write_eof()

    async def _up(self) -> None:
        await self._passes_up.wait()

    async def _down(self) -> None:
        await self._passes_down.wait()
        if self.drop_reply.is_set():
            self.drop_reply.clear()
            self.dropped += 1
            raise EOFError("this reply is lost")
