"""Real servers for the tests of this folder, started through `scripts/`.

Tests that cannot run on this machine are skipped and named in one line at the end; with MESH_LIVE=required that is an
error.
"""

import gc
import re
import shutil
import subprocess
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest

from mesh.adapters.kafka import KafkaLog
from tests.live.servers import SCRIPTS, KafkaServer, free_port
from tests.workers import leave_out

JAVA_VERSION_MIN = 17


def _missing_for_kafka() -> list[str]:
    java = shutil.which("java")
    said = subprocess.run([java, "-version"], capture_output=True, text=True, check=False).stderr if java else ""
    version = re.search(r'version "(\d+)', said)
    old = version is None or int(version[1]) < JAVA_VERSION_MIN
    return [f"Java {JAVA_VERSION_MIN}"] * old + ["Maven"] * (shutil.which("mvn") is None)


def _missing_for(item: pytest.Item, missing: dict[str, list[str]]) -> list[str]:
    """Return the programs that this test needs and the machine lacks, from the test's name and its fixtures."""
    words = " ".join((item.nodeid, *getattr(item, "fixturenames", ())))
    servers = [server for server in missing if server in words] or list(missing)
    return [thing for server in servers for thing in missing[server]]


LEFTOVERS = pytest.mark.filterwarnings("ignore::ResourceWarning")
"""A client of aiokafka that is cancelled while it connects leaves its connection to the garbage collector, which may
run in any later test. All other tests report connections that our own code leaves open."""


@pytest.fixture(scope="module", autouse=True)
def collected() -> Iterator[None]:
    """Leftovers go with the module that made them."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out live tests whose server cannot run here."""
    missing = {"kafka": _missing_for_kafka(), "redis": ["redis-server"] * (shutil.which("redis-server") is None)}
    left_out: dict[str, list[str]] = {}
    for item in items:
        if item.get_closest_marker("live"):
            item.add_marker(LEFTOVERS)
        if item.get_closest_marker("live") and (needed := _missing_for(item, missing)):
            left_out[item.nodeid] = needed
    if left_out:
        leave_out(config, items, left_out)


@pytest.fixture(scope="session")
def kafka_bootstrap(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of one broker for the whole run. Topics and groups are told apart by their names."""
    server = KafkaServer(tmp_path_factory.mktemp("kafka"))
    server.start()
    yield server.bootstrap
    server.stop()


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of one Redis for the whole run."""
    directory = str(tmp_path_factory.mktemp("redis"))
    script, port = str(SCRIPTS / "redis"), str(free_port())
    subprocess.run([script, "start", "--dir", directory, "--port", port, "--appendonly", "no"], check=True)
    yield f"redis://127.0.0.1:{port}"
    subprocess.run([script, "stop", "--dir", directory], check=True)


StartKafka = Callable[..., KafkaServer]


@pytest.fixture(scope="module")
def start_kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartKafka]:
    """Starts a cluster of one's own, to be stopped, killed and started again; ended with the module."""
    servers: list[KafkaServer] = []

    def start(*options: str, brokers: int = 1) -> KafkaServer:
        servers.append(KafkaServer(tmp_path_factory.mktemp("kafka"), *options, brokers=brokers))
        servers[-1].start()
        return servers[-1]

    yield start
    for server in servers:
        server.stop()


OpenKafka = Callable[..., Awaitable[KafkaLog]]


@pytest.fixture
async def open_kafka() -> AsyncIterator[OpenKafka]:
    """Opens a log on the brokers at an address; all are closed after the test."""
    logs: list[KafkaLog] = []

    async def open_kafka(bootstrap: str, **options: Any) -> KafkaLog:
        log = KafkaLog(bootstrap, client_id="test", **options)
        await log.start()
        logs.append(log)
        return log

    yield open_kafka
    for log in logs:
        await log.close()


@pytest.fixture
async def kafka_log(open_kafka: OpenKafka, kafka_bootstrap: str) -> KafkaLog:
    """A log on the broker that all tests share."""
    return await open_kafka(kafka_bootstrap)
