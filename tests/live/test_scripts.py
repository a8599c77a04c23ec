"""`scripts/kafka` and `scripts/redis`: they start, say where, keep the data, and stop only what is theirs."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.live.servers import SCRIPTS, free_port

pytestmark = pytest.mark.live


def run(
    script: str, *words: str, env: dict[str, str] | None = None, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    command = [str(SCRIPTS / script), *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=180, env=env, cwd=cwd)


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def kafka_dir(tmp_path: Path) -> Iterator[str]:
    yield str(tmp_path / "kafka")
    assert run("kafka", "stop", "--dir", str(tmp_path / "kafka")).returncode == 0


@pytest.fixture
def redis_dir(tmp_path: Path) -> Iterator[str]:
    yield str(tmp_path / "redis")
    assert run("redis", "stop", "--dir", str(tmp_path / "redis")).returncode == 0


def test_kafka_starts_prints_its_address_stops_and_starts_again(kafka_dir: str) -> None:
    port = free_port()
    assert run("kafka", "status", "--dir", kafka_dir).returncode == 3
    started = run("kafka", "start", "--dir", kafka_dir, "--port", str(port))
    assert started.returncode == 0, started.stderr
    assert started.stdout.splitlines()[-1] == f"bootstrap=127.0.0.1:{port}"
    assert answers(port)
    again = run("kafka", "start", "--dir", kafka_dir)
    assert again.returncode == 0
    assert again.stdout.startswith("already running")
    assert again.stdout.splitlines()[-1] == f"bootstrap=127.0.0.1:{port}"
    status = run("kafka", "status", "--dir", kafka_dir)
    assert status.returncode == 0
    assert "answers" in status.stdout
    cluster = (Path(kafka_dir) / "cluster.json").read_text()
    assert run("kafka", "stop", "--dir", kafka_dir).stdout.startswith("stopped")
    assert not answers(port)
    assert run("kafka", "status", "--dir", kafka_dir).returncode == 3
    # Without a port: the same one as before, and the same cluster with its data.
    assert run("kafka", "start", "--dir", kafka_dir).stdout.splitlines()[-1] == f"bootstrap=127.0.0.1:{port}"
    assert (Path(kafka_dir) / "cluster.json").read_text() == cluster


def test_a_taken_port_is_named(kafka_dir: str, redis_dir: str) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = str(other.getsockname()[1])
        for script, directory in (("kafka", kafka_dir), ("redis", redis_dir)):
            refused = run(script, "start", "--dir", directory, "--port", port)
            assert refused.returncode == 1
            assert f"port {port} is taken" in refused.stderr
            assert "--port" in refused.stderr


@pytest.mark.parametrize("script", ["kafka", "redis"])
def test_stop_leaves_a_process_alone_whose_pid_it_remembers_by_mistake(script: str, tmp_path: Path) -> None:
    bystander = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE)
    try:
        folder = tmp_path / "broker-1" if script == "kafka" else tmp_path
        folder.mkdir(exist_ok=True)
        (tmp_path / "cluster.json").write_text('{"cluster_id": "x", "ports": [20001], "controllers": [20002]}')
        (folder / "pid").write_text(f"{bystander.pid}\n")
        stopped = run(script, "stop", "--dir", str(tmp_path))
        assert stopped.returncode == 0
        assert "not running" in stopped.stdout
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.communicate()


def test_a_kafka_that_hangs_is_stopped_too(kafka_dir: str) -> None:
    Path(kafka_dir).mkdir()
    cluster = {"cluster_id": "-baSng_RXSRVl3BYLO5gQ", "ports": [free_port()], "controllers": [free_port()]}
    (Path(kafka_dir) / "cluster.json").write_text(json.dumps(cluster))  # one id in 64 begins with a dash
    started = run("kafka", "start", "--dir", kafka_dir)
    assert started.returncode == 0, started.stderr
    pid = int((Path(kafka_dir) / "broker-1" / "pid").read_text())
    os.kill(pid, signal.SIGSTOP)
    hanging = run("kafka", "status", "--dir", kafka_dir)
    assert (hanging.returncode, "does not answer" in hanging.stdout) == (3, True)
    assert f"stopped {pid}" in run("kafka", "stop", "--dir", kafka_dir).stdout
    until_gone(pid)


def until_gone(pid: int) -> None:
    deadline = time.monotonic() + 10
    while Path(f"/proc/{pid}/cmdline").exists() and Path(f"/proc/{pid}/cmdline").read_bytes():
        assert time.monotonic() < deadline, f"process {pid} still runs"
        time.sleep(0.005)


def test_a_cluster_keeps_its_size(kafka_dir: str) -> None:
    Path(kafka_dir).mkdir()
    (Path(kafka_dir) / "cluster.json").write_text('{"cluster_id": "x", "ports": [20001], "controllers": [20002]}')
    refused = run("kafka", "start", "--dir", kafka_dir, "--brokers", "3")
    assert refused.returncode == 1
    assert "1 broker(s), not 3" in refused.stderr


def test_without_java_the_remedy_is_said(kafka_dir: str, tmp_path: Path) -> None:
    bare = tmp_path / "bin"
    bare.mkdir()
    (bare / "python3").symlink_to(sys.executable)
    environment = {"PATH": f"{bare}:/usr/bin/nowhere:/bin/nowhere", "HOME": str(tmp_path)}
    command = [sys.executable, str(SCRIPTS / "kafka"), "start", "--dir", kafka_dir]
    refused = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert refused.returncode == 1
    assert "no java on PATH" in refused.stderr
    assert "Install Java 17" in refused.stderr


def test_without_maven_and_without_jars_the_remedy_is_said(kafka_dir: str, tmp_path: Path) -> None:
    bare = tmp_path / "bin"
    bare.mkdir()
    java = bare / "java"
    java.write_text("#!/bin/sh\necho 'openjdk version \"21.0.1\"' >&2\n")
    java.chmod(0o755)
    environment = {"PATH": f"{bare}:/bin/nowhere", "XDG_CACHE_HOME": str(tmp_path / "cache"), "HOME": str(tmp_path)}
    command = [sys.executable, str(SCRIPTS / "kafka"), "start", "--dir", kafka_dir]
    # An absolute shebang needs no PATH, so this Java answers.
    refused = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert refused.returncode == 1
    assert "no mvn on PATH" in refused.stderr
    assert "Install Maven" in refused.stderr


def test_redis_starts_prints_its_address_keeps_its_data_and_stops(redis_dir: str) -> None:
    port = str(free_port())
    assert run("redis", "status", "--dir", redis_dir).returncode == 3
    started = run("redis", "start", "--dir", redis_dir, "--port", port, "--appendonly", "yes")
    assert started.returncode == 0, started.stderr
    assert started.stdout.splitlines()[-1] == f"url=redis://127.0.0.1:{port}"
    assert run("redis", "start", "--dir", redis_dir).stdout.startswith("already running")
    assert say(int(port), b"SET answer 42") == b"+OK"
    assert run("redis", "stop", "--dir", redis_dir).stdout.startswith("stopped")
    assert not answers(int(port))
    assert run("redis", "start", "--dir", redis_dir).stdout.splitlines()[-1] == f"url=redis://127.0.0.1:{port}"
    assert say(int(port), b"STRLEN answer") == b":2"
    pid = int((Path(redis_dir) / "pid").read_text())
    os.kill(pid, signal.SIGSTOP)
    assert run("redis", "status", "--dir", redis_dir).returncode == 3
    assert f"stopped {pid}" in run("redis", "stop", "--dir", redis_dir).stdout


@pytest.mark.parametrize("script", ["kafka", "redis"])
def test_a_relative_folder_is_that_of_the_caller(script: str, tmp_path: Path) -> None:
    where = ("--dir", f"data/{script}")
    try:
        started = run(script, "start", *where, "--port", str(free_port()), cwd=tmp_path)
        assert started.returncode == 0, started.stderr
        assert f" in {tmp_path / 'data' / script}\n" in started.stdout
    finally:
        stopped = run(script, "stop", *where, cwd=tmp_path)
    assert stopped.stdout.startswith("stopped")


def say(port: int, command: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=5) as link, link.makefile("rb") as stream:
        link.sendall(command + b"\r\n")
        return stream.readline().rstrip()


def test_wrong_usage_is_distinguished_from_failure() -> None:
    assert run("kafka", "start", "--brokers", "2").returncode == 2
    assert run("redis", "start", "--appendonly", "maybe").returncode == 2
    assert run("redis", "jump").returncode == 2


def test_three_brokers_know_one_another_and_one_that_died_joins_them_again(kafka_dir: str) -> None:
    port = free_port()
    started = run("kafka", "start", "--dir", kafka_dir, "--port", str(port), "--brokers", "3")
    assert started.returncode == 0, started.stderr
    addresses = ",".join(f"127.0.0.1:{port + i}" for i in range(3))
    assert started.stdout.splitlines()[-1] == f"bootstrap={addresses}"
    assert run("kafka", "status", "--dir", kafka_dir).stdout.count("knows 3 broker(s)") == 3
    pids = {node: int((Path(kafka_dir) / f"broker-{node}" / "pid").read_text()) for node in (1, 2, 3)}
    os.kill(pids[2], signal.SIGKILL)
    until_gone(pids[2])
    assert run("kafka", "status", "--dir", kafka_dir).returncode == 3
    again = run("kafka", "start", "--dir", kafka_dir)
    assert again.returncode == 0, again.stderr
    assert run("kafka", "status", "--dir", kafka_dir).stdout.count("knows 3 broker(s)") == 3
    after = {node: int((Path(kafka_dir) / f"broker-{node}" / "pid").read_text()) for node in (1, 2, 3)}
    assert (after[1], after[3]) == (pids[1], pids[3])
    assert after[2] != pids[2]
