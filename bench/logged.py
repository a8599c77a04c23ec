"""The work of the log during a measurement: records, bytes, and the broker's CPU time if it runs on this machine."""

import os
from pathlib import Path
from typing import NamedTuple

from bench.field import Field
from mesh.app.wiring import topic_specs
from mesh.core.protocol.record import NewRecord, Record, TopicPartition

SAMPLE_MAX = 100
"""Records that are read back of each topic, to know their size."""
WAIT_MS = 200


class Tally(NamedTuple):
    """Up to now."""

    ends: dict[str, dict[int, int]]
    """Topic → partition → records ever appended."""
    broker_s: float | None
    """CPU time of the broker; None where it is none of this machine's processes."""


class Logged(NamedTuple):
    """The work of the log for one run."""

    records_per_run: float
    bytes_per_run: float
    """Keys, values and headers."""
    broker_us_per_run: float | None


async def tally(field: Field) -> Tally:
    """Now."""
    ends = {
        spec.name: {partition: bounds.end for partition, bounds in (await field.log.bounds(spec.name)).items()}
        for spec in topic_specs(field.topology)
    }
    return Tally(ends, broker_cpu_s(field.urls["log"]))


async def logged(field: Field, before: Tally, after: Tally, runs: int) -> Logged:
    """Return the work of the log for one run, from two counts before and after `runs` runs."""
    records, size = 0, 0.0
    for topic, ends in after.ends.items():
        count = sum(ends.values()) - sum(before.ends[topic].values())
        records += count
        size += count * await _mean_bytes(field, topic, ends) if count else 0.0
    used = None
    if before.broker_s is not None and after.broker_s is not None:
        used = (after.broker_s - before.broker_s) * 1e6 / runs
    return Logged(records / runs, size / runs, used)


async def _mean_bytes(field: Field, topic: str, ends: dict[int, int]) -> float:
    """Return the mean bytes of the latest records of a topic."""
    each = max(1, SAMPLE_MAX // len(ends))
    bounds = await field.log.bounds(topic)
    places = {TopicPartition(topic, p): max(bounds[p].start, end - each) for p, end in ends.items() if p in bounds}
    left = sum(ends[place.partition] - start for place, start in places.items())
    found: list[int] = []
    reader = field.log.reader(places)
    try:
        while len(found) < left and (records := await reader.poll(records_max=SAMPLE_MAX, wait_ms=WAIT_MS)):
            found += [record_bytes(record) for record in records]
    finally:
        await reader.close()
    return sum(found) / len(found) if found else 0.0


def record_bytes(record: Record | NewRecord) -> int:
    """Key, value and headers."""
    headers = sum(len(name) + len(value or b"") for name, value in record.headers)
    return len(record.key or b"") + len(record.value or b"") + headers


def broker_cpu_s(url: str) -> float | None:
    """CPU time so far of a broker that `scripts/kafka` started on this machine; None for any other log."""
    scheme, _, rest = url.partition(":")
    port = rest.rstrip("/").rpartition(":")[2]
    if scheme != "kafka" or "," in rest or not port.isdigit():
        return None
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().split(b"\0")
            if b"kafka.Kafka" not in words or f"://127.0.0.1:{port}," not in Path(os.fsdecode(words[-2])).read_text():
                continue
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it has ended meanwhile, or is none of ours
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return None
