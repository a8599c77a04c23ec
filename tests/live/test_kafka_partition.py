"""Kafka's own Java client puts a key into the same partition as we do."""

import asyncio
import random
import secrets
import subprocess

import pytest

from mesh.adapters.kafka import KafkaLog
from mesh.adapters.ports import TopicSpec
from mesh.core.protocol.partitioner import partition_of
from mesh.core.protocol.record import TopicPartition
from tests.adapters.log_kit import read
from tests.live.servers import SCRIPTS

pytestmark = pytest.mark.live

PARTITIONS = 61
ALPHABETS = ("abc019-_.:", "äöüßéñ", "ключ", "鍵値", "🔑🗝", "\u0001\u007f\u0080\u07ff\u0800\uffff")


def random_keys(count: int) -> list[str]:
    """Text of every length up to 40 in many alphabets; the empty key as well."""
    dice = random.Random(3)
    keys = {"".join(dice.choices(dice.choice(ALPHABETS), k=n % 41)) for n in range(count)}
    return sorted(keys | {""})


def produce_by_java(bootstrap: str, topic: str, keys: list[str]) -> None:
    """Kafka's console producer, which leaves the partition to the Java client."""
    classpath = subprocess.run([SCRIPTS / "kafka", "classpath"], check=True, capture_output=True, text=True).stdout
    command = ["java", "-Xmx128m", "-cp", classpath.strip(), "org.apache.kafka.tools.ConsoleProducer"]
    command += ["--bootstrap-server", bootstrap, "--topic", topic]
    command += ["--reader-property", "parse.key=true", "--reader-property", "key.separator=\t"]
    lines = "".join(f"{key}\tvalue\n" for key in keys)
    subprocess.run(command, check=True, capture_output=True, input=lines.encode())


async def test_java_and_we_agree_on_the_partition_of_every_key(kafka_log: KafkaLog, kafka_bootstrap: str) -> None:
    topic = f"p{secrets.token_hex(6)}"
    await kafka_log.create_topics([TopicSpec(topic, PARTITIONS)])
    keys = random_keys(2_000)
    await asyncio.to_thread(produce_by_java, kafka_bootstrap, topic, keys)
    reader = kafka_log.reader({TopicPartition(topic, p): 0 for p in range(PARTITIONS)})
    placed = {record.key: record.partition for record in await read(reader, len(keys))}
    await reader.close()
    assert placed == {key.encode(): partition_of(key.encode(), PARTITIONS) for key in keys}
    assert len(set(placed.values())) == PARTITIONS
