"""A Kafka of a test's own."""

import contextlib
import os
import random
import signal
import socket
import subprocess
import time
from pathlib import Path

SCRIPTS = Path(__file__).parents[2] / "scripts"
PORTS_A_CLUSTER = 8


def free_port(count: int = PORTS_A_CLUSTER) -> int:
    """The first of `count` free ports in a row, below those that the system hands out to anybody."""
    while True:
        first = random.randrange(20_000, 30_000)
        try:
            for port in range(first, first + count):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", port))
        except OSError:
            continue
        return first


class KafkaServer:
    """One to three brokers, run by `scripts/kafka` in a directory and on ports of their own.

    `{sasl}` and `{ssl}` in an option stand for two more free ports.
    """

    def __init__(self, directory: Path, *options: str, brokers: int = 1) -> None:
        self.directory = directory
        self.port = free_port()
        self.brokers = brokers
        self._options = options
        self.bootstrap = ""

    def start(self) -> None:
        """Start, or start again on the same data."""
        ports = {"{sasl}": str(self.port + 6), "{ssl}": str(self.port + 7)}
        options = list(self._options)
        for name, port in ports.items():
            options = [option.replace(name, port) for option in options]
        arguments = ["--port", str(self.port), "--brokers", str(self.brokers), *options]
        self.bootstrap = self._run("start", *arguments).splitlines()[-1].removeprefix("bootstrap=")

    def stop(self) -> None:
        self.signal(signal.SIGCONT)
        self._run("stop")

    def pid(self, node: int = 1) -> int | None:
        """The process of one broker."""
        try:
            return int((self.directory / f"broker-{node}" / "pid").read_text())
        except FileNotFoundError:
            return None

    def signal(self, number: signal.Signals, node: int = 1) -> None:
        """Stop (SIGSTOP), continue (SIGCONT) or kill (SIGKILL) one broker."""
        pid = self.pid(node)
        if pid is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
        end = time.monotonic() + 10
        while number is signal.SIGSTOP and not _all_stopped(pid):
            # Some of its threads may still answer.
            assert time.monotonic() < end, f"process {pid} does not stop"
            time.sleep(0.001)

    def _run(self, command: str, *arguments: str) -> str:
        words = [str(SCRIPTS / "kafka"), command, "--dir", str(self.directory), *arguments]
        done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=180)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


def _all_stopped(pid: int) -> bool:
    """Whether every thread of a process is stopped; taken for granted where it cannot be seen."""
    try:
        return all(
            " T " in task.read_text().rpartition(")")[2][:3] for task in Path(f"/proc/{pid}/task").glob("*/stat")
        )
    except (FileNotFoundError, ProcessLookupError):
        return False
