"""Test whether a process is safe at kill -9: it is killed in the middle of its work and started again.

The kill comes at the worst moment that is visible from outside: the subject has committed an offset whose answer is not
there. A subject that never does so is killed when a share of the work has begun. Lost: an id without an answer when
no more answers arrive. Doubled: a repeated answer, which at-least-once delivery allows.
"""

import asyncio
import os
import signal
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, NamedTuple, Protocol

from bench.peers.compare import NotMeasured

POLL_S = 0.02
WARM_S = 1.5
"""Seconds of work before the measurement, for subjects that need longer for a tenth of it."""


class Process:
    """A program of a peer, in a process group of its own: what it starts dies with it. Its output goes to a file.

    It has no session of its own: Linux gives each session the same share of a busy machine, and the mesh is measured in
    the session of the client.
    """

    def __init__(self, command: Sequence[str], *, folder: Path, cwd: Path, environ: Mapping[str, str]) -> None:
        self._command, self._folder, self._cwd = command, folder, cwd
        self._environ = {**os.environ, **environ}
        self._process: asyncio.subprocess.Process | None = None
        self._began = 0.0

    @property
    def output(self) -> Path:
        """Return its output, to explain why it ended."""
        return self._folder / "output"

    @property
    def pid(self) -> int:
        """Return the id of the running process."""
        assert self._process is not None, "not started"
        return self._process.pid

    def up_s(self) -> float:
        """Seconds since it was started."""
        return time.monotonic() - self._began

    async def start(self) -> None:
        """Start it; it says nothing when it is ready."""
        sink: IO[bytes]
        with self.output.open("ab") as sink:
            self._process = await asyncio.create_subprocess_exec(
                *self._command, cwd=self._cwd, env=self._environ, stdout=sink, stderr=sink, process_group=0
            )
        self._began = time.monotonic()

    def check(self) -> None:
        """Raises NotMeasured with its last words when it has ended by itself."""
        if self._process is not None and self._process.returncode is not None:
            words = self.output.read_text("utf-8", "replace").strip().splitlines()[-1:] or ["nothing"]
            raise NotMeasured(f"ended with status {self._process.returncode}, saying: {words[0][:200]}")

    async def kill(self) -> None:
        """SIGKILL to it and to all it started; returns when it is gone."""
        if self._process is None:
            return
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        await self._process.wait()
        self._process = None

    def cpu_s(self) -> float:
        """Processor time of the process and of those it started, in seconds."""
        ticks = 0
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                fields = stat.read_text().rpartition(")")[2].split()
            except (FileNotFoundError, ProcessLookupError):
                continue  # It ended while we looked.
            if int(fields[2]) == self.pid:
                ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")


class Subject(Protocol):
    """Work under way in a process that can be killed."""

    @property
    def process(self) -> Process: ...

    def begun(self) -> int:
        """Tasks begun so far, those begun again included."""
        ...

    async def count(self) -> int:
        """Answers so far."""
        ...

    async def promised(self) -> int:
        """Tasks that would not be done again after a kill now; as seen before `count`."""
        ...

    async def answers(self) -> Sequence[str]:
        """The id of each answer, as often as it came."""
        ...


class Verdict(NamedTuple):
    """The effects of kill -9."""

    messages: int
    kills: int
    lost: int
    doubled: int

    @property
    def safe(self) -> bool:
        """Return whether no answer was lost."""
        return self.lost == 0


def judge(ids: Sequence[str], answers: Sequence[str], kills: int) -> Verdict:
    """Count what is missing and what came again. Raises NotMeasured for an answer to an unknown request."""
    seen = Counter(answers)
    if strange := seen.keys() - set(ids):
        raise NotMeasured(f"{len(strange)} answers to nothing that was asked, such as {min(strange)!r}")
    return Verdict(len(ids), kills, len(set(ids) - seen.keys()), sum(n - 1 for n in seen.values()))


async def warm(subject: Subject, messages: int, deadline_s: float) -> int:
    """Returns the answers so far when they are a tenth of all, or when the first came WARM_S ago. Raises NotMeasured
    when that takes longer than `deadline_s`, or the process ended."""
    began: float | None = None
    try:
        async with asyncio.timeout(deadline_s):
            while True:
                subject.process.check()
                count, now = await subject.count(), time.monotonic()
                began = now if count and began is None else began
                if count >= messages / 10 or (began is not None and now - began >= WARM_S):
                    return count
                await asyncio.sleep(POLL_S / 4)
    except TimeoutError as error:
        raise NotMeasured("no answer came within the time") from error


async def kill_and_count(
    subject: Subject, ids: Sequence[str], *, kills: int, up_s_min: float, settle_s: float, deadline_s: float
) -> Verdict:
    """Kill `kills` times, let it finish, count. The subject is not running afterwards.

    `up_s_min`: no kill before it ran so long, unless it is the worst moment (commits by timer need time to be wrong).
    `settle_s`: what is missing when nothing moved for so long is lost. Raises NotMeasured when it does not start, or
    was finished before the first kill.
    """
    process = subject.process
    done = 0
    try:
        async with asyncio.timeout(deadline_s):
            await process.start()
            owed = 0
            while done < kills and await _until_the_moment(subject, len(ids), (done + 1) / (kills + 1), up_s_min, owed):
                await process.kill()
                done += 1
                owed = await subject.promised() - await subject.count()
                await process.start()
            if not done:
                raise NotMeasured("all was done before the first kill: give it more messages or slower ones")
            await _until_settled(subject, ids, settle_s)
    except TimeoutError as error:
        raise NotMeasured(f"the kill test did not end within {deadline_s:.0f} s") from error
    finally:
        await process.kill()
    return judge(ids, await subject.answers(), done)


async def _until_the_moment(subject: Subject, messages: int, share: float, up_s_min: float, owed: int) -> bool:
    """True at the moment to kill; False when the work is done. `owed`: answers that earlier kills have left missing."""
    while True:
        subject.process.check()
        promised = await subject.promised()
        count = await subject.count()
        if promised - count > owed:
            return True
        if count >= messages and promised >= messages:
            return False
        if subject.begun() >= share * messages and subject.process.up_s() >= up_s_min:
            return True
        await asyncio.sleep(POLL_S)


async def _until_settled(subject: Subject, ids: Sequence[str], settle_s: float) -> None:
    """Returns when nothing has moved for `settle_s`; for a quarter of that if every id has its answer."""
    last, since = (-1, -1), time.monotonic()
    while True:
        subject.process.check()
        now = (subject.begun(), await subject.count())
        if now != last:
            last, since = now, time.monotonic()
        still_s = time.monotonic() - since
        if still_s >= settle_s:
            return
        if still_s >= settle_s / 4 and now[1] >= len(ids) and set(await subject.answers()) >= set(ids):
            return
        await asyncio.sleep(POLL_S)
