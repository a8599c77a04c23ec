"""Decisions of this version's rules, stored in a file: `python -m tests.core.recorded` records them again.

The file holds some worlds: their stored topology, their inbox, the effects of each record, and a checkpoint from the
middle. Tests compare it with the code, so each change of the rules, of stored topologies or of checkpoints is noticed.
"""

import base64
import sys
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from mesh.core.protocol.record import StoredRecord
from mesh.core.run.effects import DeadLetter, Effect, Finish, PublishEvent, PublishTask, Schedule
from mesh.core.state.checkpoint import Snapshot
from mesh.core.state.partition_state import RULES, Partition
from mesh.core.topology.model import Topology
from mesh.core.topology.serialization import pinned_bytes, pinned_topology
from tests.core.world import World
from tests.playbook import shown

FILE = Path(__file__).parent.parent / "data" / "decided.json"
OLDER = sorted(FILE.parent.glob("decided-rules-*.json"))
"""Files of earlier rules. Their checkpoints must still load."""
SEEDS = (3, 11, 29, 40)
RECORDS_MAX = 60


class Recorded(NamedTuple):
    """One world as it was recorded."""

    topology: Topology
    inbox: list[StoredRecord]
    effects: list[list[str]]
    middle: int
    """The checkpoint holds what the records before this one made."""
    checkpoint: list[bytes]


def line(effect: Effect) -> str:
    """An effect as the file has it: what it is, and its id, by which duplicates are told everywhere."""
    match effect:
        case PublishTask() | PublishEvent():
            return f"{shown(effect)} {effect.event.id} {effect.event.data.decode('utf-8', 'replace')}"
        case Schedule():
            return f"timer {effect.timer_id} at {effect.due_ms}"
        case DeadLetter():
            return f"{shown(effect)} {effect.id}"
        case Finish():
            return f"{shown(effect)} {effect.event_id} after {effect.run.tasks} tasks"
        case _:
            return shown(effect)


def record() -> bytes:
    """The file, from the code at hand."""
    worlds = []
    for seed in SEEDS:
        world = World(seed)
        world.live()
        inbox, effects = world.inbox[:RECORDS_MAX], world.effects[:RECORDS_MAX]
        state = Partition(world.topology, number=0, partitions=1)
        middle = len(inbox) // 2
        for stored in inbox[:middle]:
            state.step(stored)
        worlds.append(
            {
                "topology": orjson.Fragment(pinned_bytes(world.topology)),
                "inbox": [_plain(stored) for stored in inbox],
                "effects": [[line(effect) for effect in some] for some in effects],
                "middle": middle,
                "checkpoint": [chunk.decode() for chunk in Snapshot(state).chunks()],
            }
        )
    return orjson.dumps({"rules": RULES, "worlds": worlds}, option=orjson.OPT_APPEND_NEWLINE)


def load(file: Path = FILE) -> tuple[int, list[Recorded]]:
    """The rules of the file, and its worlds."""
    told = orjson.loads(file.read_bytes())
    worlds = []
    for world in told["worlds"]:
        topology = pinned_topology(orjson.dumps(world["topology"]), "0" * 16)
        inbox = [_stored(*row) for row in world["inbox"]]
        chunks = [chunk.encode() for chunk in world["checkpoint"]]
        worlds.append(Recorded(topology, inbox, world["effects"], world["middle"], chunks))
    return told["rules"], worlds


def _plain(stored: StoredRecord) -> list[Any]:
    headers = [[name, base64.b64encode(value).decode()] for name, value in stored.headers]
    value = base64.b64encode(stored.value or b"").decode()
    return [stored.offset, stored.timestamp, (stored.key or b"").decode(), value, headers]


def _stored(offset: int, at_ms: int, key: str, value: str, headers: list[list[str]]) -> StoredRecord:
    told = [(name, base64.b64decode(text)) for name, text in headers]
    return StoredRecord("mesh.inbox", 0, offset, at_ms, key.encode(), base64.b64decode(value), told)


if __name__ == "__main__":
    FILE.write_bytes(record())
    sys.stdout.write(f"{FILE.name}: rules {RULES}, {FILE.stat().st_size} bytes\n")
