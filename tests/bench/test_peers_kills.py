"""The kill test finds what a process loses, with a real process that is really killed."""

import asyncio
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from bench.peers import kills
from bench.peers.compare import NotMeasured
from bench.peers.kills import Process, Verdict, judge, kill_and_count, warm
from tests.bench import losing_peer

IDS = [f"ask-{n}" for n in range(60)]


class Fake:
    """The subject: `losing_peer` in a process of its own."""

    def __init__(self, folder: Path, manner: str, work_ms: float = 10) -> None:
        self._folder = folder
        (folder / "asks").write_text(" ".join(IDS))
        command = [sys.executable, str(Path(losing_peer.__file__)), str(folder), manner, str(work_ms)]
        self.process = Process(command, folder=folder, cwd=folder, environ={})

    def begun(self) -> int:
        path = self._folder / "begun"
        return path.stat().st_size if path.exists() else 0

    async def count(self) -> int:
        return len(await self.answers())

    async def promised(self) -> int:
        return losing_peer.place(self._folder)

    async def answers(self) -> Sequence[str]:
        path = self._folder / "answers"
        return path.read_text().split() if path.exists() else []


async def tried(folder: Path, manner: str, work_ms: float = 10) -> Verdict:
    fake = Fake(folder, manner, work_ms)
    return await kill_and_count(fake, IDS, kills=2, up_s_min=0.05, settle_s=1.0, deadline_s=30.0)


async def test_a_peer_that_promises_before_it_works_is_unsafe(tmp_path: Path) -> None:
    verdict = await tried(tmp_path, "before")
    assert verdict.kills == 2
    assert verdict.lost == 2, "the one in work, at each kill"
    assert not verdict.safe


async def test_a_peer_that_promises_after_its_answer_is_safe(tmp_path: Path) -> None:
    verdict = await tried(tmp_path, "after")
    assert (verdict.messages, verdict.kills, verdict.lost) == (60, 2, 0)
    assert verdict.safe


async def test_answers_that_come_again_are_counted_and_not_called_lost(tmp_path: Path) -> None:
    fake = Fake(tmp_path, "twice")
    verdict = await kill_and_count(fake, IDS, kills=1, up_s_min=0.2, settle_s=1.0, deadline_s=30.0)
    answers = await fake.answers()
    assert verdict.doubled == len(answers) - len(set(answers))
    assert verdict.safe


async def test_a_peer_that_was_done_before_the_kill_was_not_tested(tmp_path: Path) -> None:
    fake = Fake(tmp_path, "after", 0)
    with pytest.raises(NotMeasured, match="all was done before the first kill"):
        await kill_and_count(fake, IDS, kills=1, up_s_min=20.0, settle_s=1.0, deadline_s=30.0)


async def test_a_peer_that_does_not_start_says_why(tmp_path: Path) -> None:
    fake = Fake(tmp_path, "after")
    fake.process = Process(
        [sys.executable, "-c", "raise ValueError('no broker')"], folder=tmp_path, cwd=tmp_path, environ={}
    )
    with pytest.raises(NotMeasured, match=r"ended with status 1.*ValueError: no broker"):
        await kill_and_count(fake, IDS, kills=1, up_s_min=0.0, settle_s=1.0, deadline_s=30.0)


async def test_the_clock_of_a_slow_peer_does_not_wait_for_a_tenth(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kills, "WARM_S", 0.1)
    fake = Fake(tmp_path, "after", 50)
    await fake.process.start()
    try:
        assert 1 <= await warm(fake, 1_000, 30.0) < 60
        with pytest.raises(NotMeasured, match="no answer came"):
            await warm(fake, 1_000, 0.0)
    finally:
        await fake.process.kill()


async def test_a_kill_test_has_a_deadline_and_leaves_no_process(tmp_path: Path) -> None:
    fake = Fake(tmp_path, "after", 60_000)
    with pytest.raises(NotMeasured, match="did not end within 1 s"):
        await kill_and_count(fake, IDS, kills=1, up_s_min=20.0, settle_s=1.0, deadline_s=1.0)
    with pytest.raises(AssertionError, match="not started"):
        _ = fake.process.pid


async def test_a_kill_takes_what_the_peer_started_with_it(tmp_path: Path) -> None:
    script = "import subprocess, sys; p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']); "
    script += "open('child', 'w').write(str(p.pid)); p.wait()"
    process = Process([sys.executable, "-c", script], folder=tmp_path, cwd=tmp_path, environ={})
    await process.start()
    written = tmp_path / "child"
    async with asyncio.timeout(20):
        while not (written.exists() and written.read_text()):
            process.check()
            await asyncio.sleep(0.005)
        stat = Path("/proc") / written.read_text() / "stat"
        assert process.cpu_s() > 0, "its own and its child's"
        await process.kill()
        while running(stat):  # noqa: ASYNC110 - no event reports the end of a grandchild
            await asyncio.sleep(0.005)


def running(stat: Path) -> bool:
    """Whether the process is there, and not only its status waiting to be read."""
    try:
        return stat.read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_an_answer_to_nothing_is_no_verdict() -> None:
    with pytest.raises(NotMeasured, match="answers to nothing that was asked"):
        judge(["a"], ["a", "b"], 1)


def test_every_missing_id_is_lost_and_every_further_answer_doubled() -> None:
    assert judge(["a", "b", "c"], ["a", "a", "a", "c"], 1) == Verdict(3, 1, 1, 2)


async def test_a_peer_shares_the_session_of_the_client_as_the_mesh_does(tmp_path: Path) -> None:
    process = Process([sys.executable, "-c", "input()"], folder=tmp_path, cwd=tmp_path, environ={})
    await process.start()
    try:
        assert os.getsid(process.pid) == os.getsid(0)
        assert os.getpgid(process.pid) == process.pid
    finally:
        await process.kill()
