"""JSON Lines → events, in batches: from a file or a pipe, with a progress bar, outcomes awaited if wanted.

A bad line does not hold up the others. Events of a slow pipe are sent when nothing more has come for a moment.
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
"""After so long without input the events at hand are sent."""
LOOK_BACK_AFTER_S: Final = 1.5
"""Without an outcome for so long, the log is searched once for runs that had ended before."""
CHUNKS_AHEAD: Final = 4
"""Read from a pipe and not yet sent."""
LINE_BYTES_MAX: Final = 16_777_216
FLAWS_SHOWN_MAX: Final = 20


class Sent(NamedTuple):
    """A line whose outcome is awaited: its number, its request's id, the fingerprint of its body."""

    line: int
    event_id: str
    fingerprint: str


class How(NamedTuple):
    """What the options say about every event of this command."""

    type: str
    id: str | None
    run_id: str | None
    deadline_s: float | None
    wait: bool
    timeout_s: float
    key: str | None

    def request(self, mesh: "Mesh", document: bytes) -> "Event":
        """The event for a document. Raises InvalidInput."""
        return mesh.request(
            self.type, document, id=self.id, run_id=self.run_id, deadline_s=self.deadline_s, key=self.key
        )


class Lines:
    """Bytes as they come → numbered lines in UTF-8. Of one that is over-long None is told, and its rest passed over."""

    def __init__(self, where: str = "-") -> None:
        """`where`: the file, for errors."""
        self.number = 0
        self._text = Utf8(where)
        self._rest = b""
        self._skipping = False

    def feed(self, chunk: bytes, *, last: bool = False) -> Sequence[tuple[int, bytes | None]]:
        """Lines that are complete now; with `last` also one without an end. Raises InvalidInput."""
        found: list[tuple[int, bytes | None]] = []
        *complete, self._rest = (self._rest + self._text.feed(chunk, last=last)).split(b"\n")
        if last and self._rest:
            complete.append(self._rest)
            self._rest = b""
        for line in complete:
            if self._skipping:
                self._skipping = False  # the end of an over-long line, which was told
                continue
            self.number += 1
            found.append((self.number, line if len(line) <= LINE_BYTES_MAX else None))
        if len(self._rest) > LINE_BYTES_MAX:
            if not self._skipping:
                self.number += 1
                found.append((self.number, None))
            self._skipping, self._rest = True, b""
        return found


class Stream:
    """Sends lines, waits for outcomes if wanted, and says what went wrong, line by line."""

    def __init__(self, session: Session, mesh: "Mesh", how: How, *, strict: bool) -> None:
        self._screen = session.output
        self._mesh = mesh
        self._how = how
        self._strict = strict
        self._batch: list[tuple[int, Event]] = []
        self._sent = 0
        self._flaws = 0
        self._endings = dict.fromkeys(ENDINGS, 0)
        self._open: dict[str, list[Sent]] = {}
        """Run → the lines that wait for it."""
        self._late: dict[str, LateRequest] = {}
        """Runs that had ended before, of which the log may hold no outcome."""
        self._last: Run | None = None
        self._heard = asyncio.Event()

    async def run(self, path: str | None) -> int:
        """Send everything from a file, or from standard input; answers the exit code."""
        from mesh.operations.runs import Runs

        began = time.monotonic()
        runs = Runs(self._mesh.log, self._mesh.topology)
        places = await runs.ends()
        async with asyncio.TaskGroup() as group:
            listening = group.create_task(self._listen(runs, places)) if self._how.wait else None
            with self._screen.progress(_size(path)) as progress:
                async with aclosing(_chunks(path)) as chunks:
                    await self._send_all(chunks, progress, Lines(path or "-"))
                if listening is not None:
                    await self._all_ended(runs, progress)
                    listening.cancel()
        return self._conclude(time.monotonic() - began)

    async def _send_all(self, chunks: AsyncGenerator[bytes | None, None], progress: Advance, lines: Lines) -> None:
        async for chunk in chunks:
            if chunk is None:
                await self._send_whole_batches(1)
                continue
            for number, line in lines.feed(chunk):
                self._take(number, line)
            await self._send_whole_batches(BATCH)
            progress.advance(len(chunk), f"{self._sent:,} sent")
        for number, line in lines.feed(b"", last=True):
            self._take(number, line)
        if not (self._strict and self._flaws):
            self._strict = False
            await self._send_whole_batches(1)

    async def _send_whole_batches(self, at_least: int) -> None:
        while len(self._batch) >= at_least and not self._strict:
            part, self._batch = self._batch[:BATCH], self._batch[BATCH:]
            await self._send(part)

    def _take(self, number: int, line: bytes | None) -> None:
        if line is None:
            self._flaw(number, "too_large", f"the line is longer than {LINE_BYTES_MAX:,} bytes")
        elif line.strip():
            try:
                self._batch.append((number, self._how.request(self._mesh, line.strip())))
            except InvalidInput as error:
                self._flaw(number, error.code, error.what)

    async def _send(self, part: "list[tuple[int, Event]]") -> None:
        """Send some events; what the log refuses is the flaw of its line."""
        if self._how.wait:
            for number, event in part:
                self._open.setdefault(event.run_id, []).append(_sent(number, event))
        try:
            runs = await self._mesh.send([event for _, event in part])
        except InvalidInput as error:
            if len(part) == 1:
                self._open.pop(part[0][1].run_id, None)
                self._flaw(part[0][0], error.code, error.what)
                return
            for each in part:  # one of them is refused; the ids are the same, so nothing happens twice
                if self._how.wait:
                    self._open[each[1].run_id].remove(_sent(*each))
                await self._send([each])
            return
        self._sent += len(part)
        self._last = runs[-1]
        if not self._how.wait:
            for (number, _), run in zip(part, runs, strict=True):
                self._screen.emit({"line": number, "run": run.id, "id": run.event_id})

    # ----------------------------------------------------------------------------------------------------- outcomes

    async def _listen(self, runs: "Runs", places: "Mapping[TopicPartition, int]") -> None:
        async with aclosing(runs.outcomes(places)) as outcomes:
            async for run_id, answer in outcomes:
                if isinstance(answer, LateRequest):
                    self._late |= {run_id: answer} if run_id in self._open else {}
                else:
                    self._ended(run_id, answer)

    def _ended(self, run_id: str, body: dict[str, Any]) -> None:
        for number, event_id, body_print in self._open.pop(run_id, ()):
            self._heard.set()
            why = why_not_answered(body, event_id, body_print)
            if why is not None:
                self._flaw(number, *why)
                continue
            self._endings[body["ending"]] = self._endings.get(body["ending"], 0) + 1
            self._screen.emit({"line": number, **body})

    async def _all_ended(self, runs: "Runs", progress: Advance) -> None:
        """Until every run has ended, or for as long as we were to wait."""
        began = time.monotonic()
        deadline = began + self._how.timeout_s
        looked_back = told = False
        while self._open and (left_s := deadline - time.monotonic()) > 0:
            progress.advance(0, f"{self._sent:,} sent, {len(self._open):,} running")
            self._heard.clear()
            try:
                async with asyncio.timeout(min(left_s, LOOK_BACK_AFTER_S)):
                    await self._heard.wait()
                    await asyncio.sleep(IDLE_S)
            except TimeoutError:
                if not told and time.monotonic() - began >= NOTE_AFTER_S and not any(self._endings.values()):
                    told = True
                    await self._say_if_nobody_reads()
                if not looked_back:
                    looked_back = True
                    for run_id, body in (await runs.past_outcomes(set(self._open))).items():
                        self._ended(run_id, body)
                for run_id in self._late.keys() & self._open.keys():
                    for number, _, _ in self._open.pop(run_id):
                        self._flaw(number, self._late[run_id].code, self._late[run_id].message)

    async def _say_if_nobody_reads(self) -> None:
        if self._last is not None and not await wait_until_consumed(
            self._mesh.log, self._mesh.topology, self._last.position, within_s=0
        ):
            self._screen.note(("no answer yet: ", "yellow"), NOT_CONSUMED)

    # ------------------------------------------------------------------------------------------------------ the end

    def _flaw(self, number: int, code: str, what: str) -> None:
        self._flaws += 1
        if self._screen.json:
            self._screen.emit_error({"line": number, "code": code, "what": what, "exit_code": 1})
        elif self._flaws <= FLAWS_SHOWN_MAX:
            self._screen.warn((f"line {number}", "yellow"), f": {code}: {what}")

    def _conclude(self, spent_s: float) -> int:
        output = self._screen
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
    """A file for reading. Raises NotFound with this remedy, InvalidInput, also from the reads in the block."""
    try:
        with Path(path).open("rb") as file:
            yield file
    except FileNotFoundError as error:
        raise NotFound("there is no such file", where=path, remedy=remedy) from error
    except OSError as error:  # a folder opens on some systems; a failed read does not name its file
        raise InvalidInput(f"the file cannot be read: {error.strerror}", code="usage", where=path) from error


async def _chunks(path: str | None) -> AsyncGenerator[bytes | None, None]:
    """The bytes of a file or of standard input as they come; None when nothing came for a moment."""
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
    """Standard input → queue, in a thread of its own: asyncio would make the terminal non-blocking, also for the
    shell that we came from. Not through sys.stdin, whose lock a thread must not hold when Python ends."""
    while room.acquire():
        chunk: bytes | OSError
        try:
            chunk = read_input()
        except OSError as error:
            chunk = error
        try:
            loop.call_soon_threadsafe(queue.put_nowait, chunk)
        except RuntimeError:
            return  # the loop has ended: nobody waits for more
        if not chunk or isinstance(chunk, OSError):
            return


def _size(path: str | None) -> int | None:
    try:
        return None if path is None else Path(path).stat().st_size or None
    except OSError:
        return None  # opening it says what is wrong
