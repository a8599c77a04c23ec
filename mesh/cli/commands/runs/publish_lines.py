"""Publishes JSON Lines of a file or a pipe in batches, with a progress bar; awaits their outcomes if wanted.

A bad line is reported, and the others are sent. A pause in a slow pipe sends the events at hand.
"""

import asyncio
import threading
import time
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final, NamedTuple

from mesh.cli.commands.runs.outcome_wait import NOTE_AFTER_S
from mesh.cli.framework.output import Advance
from mesh.cli.framework.session import Session
from mesh.cli.framework.standard_streams import CHUNK_BYTES, Utf8, read_input, unreadable
from mesh.cli.framework.text import counted, took
from mesh.cli.views import run_view
from mesh.cli.views.switch_view import NOT_CONSUMED, wait_until_consumed
from mesh.core.errors import InvalidInput, NotFound, WaitTimeout
from mesh.core.history.request_match import why_not_answered
from mesh.core.protocol.event import fingerprint
from mesh.core.publishing.request_rejection import LateRequest
from mesh.core.run.state import COMPLETED, ENDINGS

if TYPE_CHECKING:
    from mesh.client import Mesh, Run
    from mesh.core.protocol.event import Event
    from mesh.core.protocol.record import TopicPartition
    from mesh.operations.runs import Runs

BATCH: Final = 500
IDLE_S: Final = 0.05
"""After this long without input, the events at hand are sent."""
LOOK_BACK_AFTER_S: Final = 1.5
"""After this long without an outcome, the log is searched once for runs that had ended before."""
CHUNKS_AHEAD: Final = 4
"""The largest number of chunks that are read from a pipe and not yet sent."""
LINE_BYTES_MAX: Final = 16_777_216
FLAWS_SHOWN_MAX: Final = 20


class Sent(NamedTuple):
    """A line whose outcome is awaited: its number, the id of its request, and the fingerprint of its body."""

    line: int
    event_id: str
    fingerprint: str


class PublishOptions(NamedTuple):
    """The options that hold for every event of this command."""

    type: str
    id: str | None
    run_id: str | None
    deadline_s: float | None
    wait: bool
    timeout_s: float
    key: str | None

    def request(self, mesh: "Mesh", document: bytes) -> "Event":
        """Make the event for a document. Raises InvalidInput."""
        return mesh.request(
            self.type, document, id=self.id, run_id=self.run_id, deadline_s=self.deadline_s, key=self.key
        )


class Lines:
    """Splits bytes into numbered lines in UTF-8. An over-long line is None, and its rest is skipped."""

    def __init__(self, where: str = "-") -> None:
        """`where`: the file, for errors."""
        self.number = 0
        self._text = Utf8(where)
        self._rest = b""
        self._skipping = False

    def feed(self, chunk: bytes, *, last: bool = False) -> Sequence[tuple[int, bytes | None]]:
        """Take the next bytes; return the lines that are complete now, with `last` also one without an end.

        Raises InvalidInput.
        """
        found: list[tuple[int, bytes | None]] = []
        *complete, self._rest = (self._rest + self._text.feed(chunk, last=last)).split(b"\n")
        if last and self._rest:
            complete.append(self._rest)
            self._rest = b""
        for line in complete:
            if self._skipping:
                self._skipping = False  # the end of an over-long line, which was reported
                continue
            self.number += 1
            found.append((self.number, line if len(line) <= LINE_BYTES_MAX else None))
        if len(self._rest) > LINE_BYTES_MAX:
            if not self._skipping:
                self.number += 1
                found.append((self.number, None))
            self._skipping, self._rest = True, b""
        return found


class LinePublisher:
    """Sends lines, waits for outcomes if wanted, and reports bad lines by their number."""

    def __init__(self, session: Session, mesh: "Mesh", options: PublishOptions, *, strict: bool) -> None:
        self._output = session.output
        self._mesh = mesh
        self._options = options
        self._strict = strict
        self._batch: list[tuple[int, Event]] = []
        self._sent = 0
        self._flaws = 0
        self._endings = dict.fromkeys(ENDINGS, 0)
        self._open: dict[str, list[Sent]] = {}
        """Run id → the lines that wait for its outcome."""
        self._late: dict[str, LateRequest] = {}
        """Runs that had ended before; the log may hold no outcome of them."""
        self._last: Run | None = None
        self._answered = asyncio.Event()

    async def run(self, path: str | None) -> int:
        """Send everything from a file or from standard input; return the exit code."""
        from mesh.operations.runs import Runs

        began = time.monotonic()
        runs = Runs(self._mesh.log, self._mesh.topology)
        ends = await runs.ends()
        async with asyncio.TaskGroup() as group:
            listening = group.create_task(self._listen(runs, ends)) if self._options.wait else None
            with self._output.progress(_size(path)) as progress:
                async with aclosing(_chunks(path)) as chunks:
                    await self._send_all(chunks, progress, Lines(path or "-"))
                if listening is not None:
                    await self._wait_for_ends(runs, progress)
                    listening.cancel()
        return self._conclude(time.monotonic() - began)

    async def _send_all(self, chunks: AsyncGenerator[bytes | None, None], progress: Advance, lines: Lines) -> None:
        async for chunk in chunks:
            if chunk is None:
                await self._send_whole_batches(1)
                continue
            for number, line in lines.feed(chunk):
                self._queue(number, line)
            await self._send_whole_batches(BATCH)
            progress.advance(len(chunk), f"{self._sent:,} sent")
        for number, line in lines.feed(b"", last=True):
            self._queue(number, line)
        if not (self._strict and self._flaws):
            self._strict = False
            await self._send_whole_batches(1)

    async def _send_whole_batches(self, at_least: int) -> None:
        while len(self._batch) >= at_least and not self._strict:
            part, self._batch = self._batch[:BATCH], self._batch[BATCH:]
            await self._send(part)

    def _queue(self, number: int, line: bytes | None) -> None:
        if line is None:
            self._flaw(number, "too_large", f"the line is longer than {LINE_BYTES_MAX:,} bytes")
        elif line.strip():
            try:
                self._batch.append((number, self._options.request(self._mesh, line.strip())))
            except InvalidInput as error:
                self._flaw(number, error.code, error.what)

    async def _send(self, part: "list[tuple[int, Event]]") -> None:
        """Send some events. An event that the log refuses makes its line a bad line."""
        if self._options.wait:
            for number, event in part:
                self._open.setdefault(event.run_id, []).append(_sent(number, event))
        try:
            runs = await self._mesh.send([event for _, event in part])
        except InvalidInput as error:
            if len(part) == 1:
                self._open.pop(part[0][1].run_id, None)
                self._flaw(part[0][0], error.code, error.what)
                return
            for each in part:  # one of them is refused; equal ids keep the others from running twice
                if self._options.wait:
                    self._open[each[1].run_id].remove(_sent(*each))
                await self._send([each])
            return
        self._sent += len(part)
        self._last = runs[-1]
        if not self._options.wait:
            for (number, _), run in zip(part, runs, strict=True):
                self._output.emit({"line": number, "run": run.id, "id": run.event_id})

    # ----------------------------------------------------------------------------------------------------- outcomes

    async def _listen(self, runs: "Runs", ends: "Mapping[TopicPartition, int]") -> None:
        async with aclosing(runs.outcomes(ends)) as outcomes:
            async for run_id, answer in outcomes:
                if isinstance(answer, LateRequest):
                    self._late |= {run_id: answer} if run_id in self._open else {}
                else:
                    self._show_ended(run_id, answer)

    def _show_ended(self, run_id: str, body: dict[str, Any]) -> None:
        for number, event_id, body_print in self._open.pop(run_id, ()):
            self._answered.set()
            why = why_not_answered(body, event_id, body_print)
            if why is not None:
                self._flaw(number, *why)
                continue
            self._endings[body["ending"]] = self._endings.get(body["ending"], 0) + 1
            self._output.emit({"line": number, **body})

    async def _wait_for_ends(self, runs: "Runs", progress: Advance) -> None:
        """Wait until every run has ended, at most for the timeout."""
        began = time.monotonic()
        deadline = began + self._options.timeout_s
        looked_back = noted = False
        while self._open and (left_s := deadline - time.monotonic()) > 0:
            progress.advance(0, f"{self._sent:,} sent, {len(self._open):,} running")
            self._answered.clear()
            try:
                async with asyncio.timeout(min(left_s, LOOK_BACK_AFTER_S)):
                    await self._answered.wait()
                    await asyncio.sleep(IDLE_S)
            except TimeoutError:
                if not noted and time.monotonic() - began >= NOTE_AFTER_S and not any(self._endings.values()):
                    noted = True
                    await self._note_if_not_consumed()
                if not looked_back:
                    looked_back = True
                    for run_id, body in (await runs.past_outcomes(set(self._open))).items():
                        self._show_ended(run_id, body)
                for run_id in self._late.keys() & self._open.keys():
                    for number, _, _ in self._open.pop(run_id):
                        self._flaw(number, self._late[run_id].code, self._late[run_id].message)

    async def _note_if_not_consumed(self) -> None:
        if self._last is not None and not await wait_until_consumed(
            self._mesh.log, self._mesh.topology, self._last.position, within_s=0
        ):
            self._output.note(("no answer yet: ", "yellow"), NOT_CONSUMED)

    # ------------------------------------------------------------------------------------------------------ the end

    def _flaw(self, number: int, code: str, what: str) -> None:
        self._flaws += 1
        if self._output.json:
            self._output.emit_error({"line": number, "code": code, "what": what, "exit_code": 1})
        elif self._flaws <= FLAWS_SHOWN_MAX:
            self._output.warn((f"line {number}", "yellow"), f": {code}: {what}")

    def _conclude(self, spent_s: float) -> int:
        output = self._output
        if self._flaws > FLAWS_SHOWN_MAX and not output.json:
            output.warn((f"… and {self._flaws - FLAWS_SHOWN_MAX:,} more bad lines", "dim"))
        flaws = f", {counted(self._flaws, 'bad line')}" if self._flaws else ""
        output.note(
            f"{self._sent:,} sent{flaws} in {took(spent_s * 1_000)}", (f"  {self._sent / spent_s:,.0f}/s", "dim")
        )
        for ending, number in self._endings.items():
            if number:
                output.print("  ", run_view.state(ending), f" {number:,}")
        if self._open:
            output.print(
                "  ", run_view.state("open"), f" {len(self._open):,}", ("  not ended in time; they go on", "dim")
            )
        failed = sum(number for ending, number in self._endings.items() if ending != COMPLETED)
        if self._flaws or failed:
            return 1
        return WaitTimeout.exit_code if self._open else 0


def _sent(number: int, event: "Event") -> Sent:
    return Sent(number, event.id, fingerprint(event.data))


@contextmanager
def opened(path: str, *, remedy: str = "Name one with @FILE, or give JSON") -> Iterator[IO[bytes]]:
    """Open a file for reading. Raises NotFound with this remedy, and InvalidInput also for reads in the block."""
    try:
        with Path(path).open("rb") as file:
            yield file
    except FileNotFoundError as error:
        raise NotFound("there is no such file", where=path, remedy=remedy) from error
    except OSError as error:  # a folder opens on some systems; a failed read does not name its file
        raise InvalidInput(f"the file cannot be read: {error.strerror}", code="usage", where=path) from error


async def _chunks(path: str | None) -> AsyncGenerator[bytes | None, None]:
    """Yield the bytes of a file or of standard input as they come; None after a pause."""
    if path is not None:
        with opened(path) as file:
            while chunk := file.read(CHUNK_BYTES):
                yield chunk
        return
    queue: asyncio.Queue[bytes | OSError] = asyncio.Queue()
    room = threading.Semaphore(CHUNKS_AHEAD)
    pump = threading.Thread(target=_pump, args=(asyncio.get_running_loop(), queue, room), daemon=True)
    pump.start()
    while True:
        try:
            async with asyncio.timeout(IDLE_S):
                came = await queue.get()
        except TimeoutError:
            yield None
            came = await queue.get()
        room.release()
        if isinstance(came, OSError):
            raise unreadable(came) from came
        if not came:
            return
        yield came


def _pump(loop: asyncio.AbstractEventLoop, queue: asyncio.Queue[bytes | OSError], room: threading.Semaphore) -> None:
    """Read standard input into the queue, in a thread of its own.

    asyncio would make the terminal non-blocking, also for the calling shell. sys.stdin is not used: a thread must not
    hold its lock when Python ends.
    """
    while room.acquire():
        chunk: bytes | OSError
        try:
            chunk = read_input()
        except OSError as error:
            chunk = error
        try:
            loop.call_soon_threadsafe(queue.put_nowait, chunk)
        except RuntimeError:
            return  # the loop has ended
        if not chunk or isinstance(chunk, OSError):
            return


def _size(path: str | None) -> int | None:
    try:
        return None if path is None else Path(path).stat().st_size or None
    except OSError:
        return None  # opening it raises the error
