"""The Faust app of agents/wordcount works for a mesh on real Kafka, also when it is killed in the middle."""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from mesh.adapters.clock import SystemClock
from mesh.adapters.kafka import KafkaLog
from mesh.app.wiring import load_topology, topic_specs
from mesh.client import Mesh
from mesh.core.protocol.record import TopicPartition
from mesh.core.topology.model import Topology
from tests.cli.conftest import ROOT, Cli

pytestmark = pytest.mark.live
DEADLINE_S = 180.0
APP = ROOT / "agents" / "wordcount"


class Words:
    """The app in a folder, for a mesh of its own prefix on a broker."""

    def __init__(self, folder: Path, bootstrap: str, prefix: str) -> None:
        self.folder, self.id = folder / "app", f"{prefix}-app"
        shutil.copytree(APP, self.folder, ignore=shutil.ignore_patterns("__pycache__"))
        file = self.folder / "topics.yaml"
        text = file.read_text().replace("{name: wordcount,", f"{{name: wordcount, prefix: {prefix},")
        text = text.replace("faust: wordcount", f"faust: {self.id}").replace("wordcount.", f"{prefix}-wordcount.")
        file.write_text(text)
        code = self.folder / "wordcount.py"
        code.write_text(code.read_text().replace('"wordcount",', f'"{self.id}",').replace("wordcount-seen", prefix))
        self.topology = load_topology(str(file))
        self.environ = {
            **os.environ,
            "KAFKA": f"kafka://{bootstrap}",
            "MESH_BOARD": f"sqlite:{folder / 'board.db'}",
            "PYTHONPATH": f"{ROOT}:{self.folder}",
        }
        self.output = folder / "faust.log"

    @contextmanager
    def running(self, end: signal.Signals = signal.SIGTERM) -> Iterator[subprocess.Popen[bytes]]:
        command = [sys.executable, "-m", "faust", "-A", "wordcount", "worker", "-l", "info", "--without-web"]
        with self.output.open("ab") as output:
            process = subprocess.Popen(command, cwd=self.folder, env=self.environ, stdout=output, stderr=output)
        try:
            yield process
        finally:
            process.send_signal(end)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(30)
                raise

    async def table(self, log: KafkaLog) -> Counter[str]:
        """The counts of all words, by the changelog of the table."""
        topic = f"{self.id}-words-changelog"
        bounds = await log.bounds(topic)
        reader = log.reader({TopicPartition(topic, number): each.start for number, each in bounds.items()})
        found: dict[tuple[int, bytes], int] = {}
        try:
            while any(reader.position(TopicPartition(topic, number)) < each.end for number, each in bounds.items()):
                for record in await reader.poll(records_max=5_000, wait_ms=500):
                    assert record.key is not None
                    assert record.value is not None
                    found[record.partition, record.key] = json.loads(record.value)
        finally:
            await reader.close()
        assert len({key for _, key in found}) == len(found), "each word is in one partition"
        return Counter({json.loads(key): count for (_, key), count in found.items()})


async def until_served(log: KafkaLog, topology: Topology, words: Words) -> None:
    """Wait until the app is at work: it has committed that it is."""
    await until(lambda: log.committed(words.id, topology.tasks("count")), lambda commits: len(commits) == 6)


async def until(read: Callable[[], Awaitable[Any]], is_right: Callable[[Any], bool]) -> None:
    """Read again until the value is right."""
    async with asyncio.timeout(DEADLINE_S):
        while not is_right(await read()):
            await SystemClock().sleep_ms(50)


def words_seen(number: int) -> Mapping[str, str]:
    return {f"w-{n}": f"word-{n % 17}" for n in range(number)}


async def test_a_faust_app_killed_in_the_middle_loses_nothing(
    kafka_log: KafkaLog, kafka_bootstrap: str, tmp_path: Path
) -> None:
    words = Words(tmp_path, kafka_bootstrap, "faust-join")
    topology = words.topology
    await kafka_log.create_topics(topic_specs(topology))
    cli = Cli(None, words.folder, tmp_path)
    sent, tasks = words_seen(1_000), topology.tasks("count")

    async def answered() -> int:
        return sum(each.offset for each in (await kafka_log.committed(words.id, tasks)).values())

    board = ("--board", words.environ["MESH_BOARD"])
    with cli.up("intake", "orchestrator", "--log", f"kafka://{kafka_bootstrap}", *board):
        mesh = Mesh(kafka_log, topology)
        with words.running(signal.SIGKILL):
            await until_served(kafka_log, topology, words)
            requests = (mesh.publish("word.seen", {"id": id, "word": word}) for id, word in sent.items())
            runs = await asyncio.gather(*requests)
            await until(answered, lambda count: count > 50)
        redone_max = 1_000 - await answered()
        with words.running():
            outcomes = [await run.outcome(timeout_s=DEADLINE_S) for run in runs]
            await until(answered, lambda count: count == 1_000)
        await mesh.close()
    assert redone_max > 0, "it was killed before the end"
    assert Counter(outcome.ending for outcome in outcomes) == {"completed": 1_000}
    assert sum(each.end for each in (await kafka_log.bounds(topology.outcomes)).values()) == 1_000, "each ended once"
    for (id, word), outcome in zip(sent.items(), outcomes, strict=True):
        ((type, _, data),) = outcome.results
        assert (type, data["id"], data["word"]) == ("word.counted", id, word)
    counted, right = await words.table(kafka_log), Counter(sent.values())
    assert counted.keys() == right.keys()
    for word, count in right.items():
        assert count <= counted[word] <= count + redone_max, word
