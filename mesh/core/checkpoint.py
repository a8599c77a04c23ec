"""Checkpoints: the state of an inbox partition as bytes, and back. And the note that names one. Pure.

    for chunk in Snapshot(state).chunks(): ...        # in slices, between batches, consistent as of one offset
    loading = Loading(); loading.feed(chunk); ...; state = loading.partition(topology, pinned)

A run is a value: decided on a copy and replaced, never changed. So a shallow copy of the table of runs is the state as
of one offset, however long its writing takes. `load(dump(state))` folds on exactly as `state` does.

The *note* is the text that goes with every commit of the orchestrator: which checkpoint stands, and under which
topology and rules everything since was decided. Who reads the committed offset thus reads the name of a checkpoint
that is durable, at or before that offset, and was named by the owner of the partition.
"""

import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final, NamedTuple

import orjson

from mesh.core.fold import RULES, Ended, Partition
from mesh.core.run import Run
from mesh.core.shape import Shapes, ShapeUnknown
from mesh.core.topology import Topology

__all__ = [
    "CHUNK_ROWS",
    "RULES",
    "SCHEMA",
    "CheckpointNewer",
    "CheckpointUnreadable",
    "Loading",
    "Note",
    "Place",
    "Snapshot",
    "note_of",
]

SCHEMA: Final = 1
"""Version of the format: raised when fields that were added with a default are not enough."""
CHUNK_ROWS: Final = 128
"""Runs in one chunk, and eight times as many that ended: about 2 ms of work."""
_STREAMED: Final = ("runs", "ended")


class CheckpointUnreadable(ValueError):
    """Bytes that are no checkpoint this version understands, or not all of one. Says which."""


class CheckpointNewer(CheckpointUnreadable):
    """It was written by a newer version of the mesh: what that decided is not for this one to decide again."""


class Place(NamedTuple):
    """Where a checkpoint lies in its partition of mesh.checkpoints."""

    first: int
    """Offset of its first record, which is its name: no other can have it."""
    last: int
    records: int


@dataclass(frozen=True, slots=True)
class Note:
    """What the metadata of a commit says; see the module. `offset` is that of the checkpoint: the next to fold."""

    topology: str
    """Digest of the topology under which new runs were opened from `offset` on."""
    offset: int
    checkpoint: Place | None = None
    """None: the state at `offset` is empty."""
    rules: int = RULES

    def text(self) -> str:
        """About 120 bytes of JSON."""
        return orjson.dumps(
            {
                "v": SCHEMA,
                "rules": self.rules,
                "topology": self.topology,
                "offset": self.offset,
                "checkpoint": self.checkpoint and self.checkpoint._asdict(),
            }
        ).decode()


def note_of(metadata: str) -> Note:
    """The note in a commit's metadata. Raises CheckpointUnreadable when it is none."""
    try:
        told = orjson.loads(metadata)
        if told["v"] != SCHEMA:
            raise _unknown(told["v"])(f"the note is of version {told['v']!r}, known is {SCHEMA}")
        place = told["checkpoint"] and Place(*(int(told["checkpoint"][name]) for name in Place._fields))
        return Note(str(told["topology"]), int(told["offset"]), place or None, int(told["rules"]))
    except (orjson.JSONDecodeError, KeyError, TypeError) as error:
        raise CheckpointUnreadable(f"{metadata[:100]!r} is no note of a checkpoint: {error}") from error


def _unknown(version: object) -> type[CheckpointUnreadable]:
    return CheckpointNewer if isinstance(version, int) and version > SCHEMA else CheckpointUnreadable


def _facts() -> dict[str, Any]:
    """What a partition's state is beside its runs: name → type."""
    return {name: hint for name, hint in typing.get_type_hints(Partition).items() if name not in _STREAMED}


class Snapshot:
    """The state of a partition as of now, to be written at leisure: the partition may go on."""

    def __init__(self, state: Partition) -> None:
        self.offset = state.offset
        self.runs = list(state.runs.values())
        self.ended = list(state.ended.items())
        self._number = state.number
        self._partitions = state.partitions
        self._topology = state.topology.digest
        self._shapes = Shapes()
        self._facts = {name: self._shapes.plain(hint)(getattr(state, name)) for name, hint in _facts().items()}

    def chunks(self, rows_max: int = CHUNK_ROWS) -> Iterator[bytes]:
        """The checkpoint as JSON documents, in order. Each is made when it is asked for."""
        run, ended = self._shapes.plain(Run), self._shapes.plain(Ended)
        head = {
            "schema": SCHEMA,
            "rules": RULES,
            "number": self._number,
            "partitions": self._partitions,
            "topology": self._topology,
            "facts": self._facts,
            "runs": len(self.runs),
            "ended": len(self.ended),
            "fields": self._shapes.fields,
        }
        yield orjson.dumps(head)
        for runs in _slices(self.runs, rows_max):
            yield orjson.dumps(["runs", [run(one) for one in runs]])
        for rows in _slices(self.ended, rows_max * 8):
            yield orjson.dumps(["ended", [(id, ended(one)) for id, one in rows]])


class Loading:
    """A checkpoint on its way back: feed its chunks in order, then ask for the partition."""

    def __init__(self) -> None:
        self.head: Mapping[str, Any] = {}
        self.runs: dict[str, Run] = {}
        self.ended: dict[str, Ended] = {}
        self._facts: dict[str, Any] = {}
        self._run: Any = None
        self._ended: Any = None

    def feed(self, chunk: bytes) -> None:
        """The next chunk. Raises CheckpointUnreadable."""
        try:
            if self.head:
                kind, rows = orjson.loads(chunk)
                if kind == "runs":
                    make = self._run
                    self.runs.update((run.id, run) for run in map(make, rows))
                elif kind == "ended":
                    make = self._ended
                    self.ended.update((id, make(row)) for id, row in rows)
                else:
                    raise CheckpointUnreadable(f"a chunk of an unknown kind, {kind!r}")
            else:
                self._begin(orjson.loads(chunk))
        except CheckpointUnreadable:
            raise
        except ShapeUnknown as error:
            raise CheckpointNewer(f"{type(error).__name__}: {error}") from error
        except (orjson.JSONDecodeError, KeyError, TypeError, ValueError, IndexError) as error:
            raise CheckpointUnreadable(f"{type(error).__name__}: {error}") from error

    def _begin(self, head: Mapping[str, Any]) -> None:
        if head["schema"] != SCHEMA:
            raise _unknown(head["schema"])(f"it is of schema {head['schema']!r}, known is {SCHEMA}")
        shapes = Shapes(fields=head["fields"])
        self._run, self._ended = shapes.value(Run), shapes.value(Ended)
        hints = _facts()
        unknown = sorted(head["facts"].keys() - hints.keys())
        if unknown:
            raise CheckpointNewer(f"it says {', '.join(unknown)} of the partition, which is not known here")
        self._facts = {name: shapes.value(hints[name])(plain) for name, plain in head["facts"].items()}
        self.head = head

    @property
    def complete(self) -> bool:
        """Whether every run is there."""
        return bool(self.head) and (len(self.runs), len(self.ended)) == (self.head["runs"], self.head["ended"])

    def partition(self, topology: Topology, pinned: Mapping[str, Topology] | None = None) -> Partition:
        """The state, opening new runs under `topology`. Raises CheckpointUnreadable when chunks are missing."""
        if not self.complete:
            wanted = f"{self.head['runs']} runs and {self.head['ended']} ended ones" if self.head else "a head"
            found = f"{len(self.runs)} and {len(self.ended)}"
            raise CheckpointUnreadable(f"it is not whole: {wanted} expected, {found} found")
        number, partitions = self.head["number"], self.head["partitions"]
        state = Partition(topology, number=number, partitions=partitions, pinned=pinned)
        for name, value in self._facts.items():
            setattr(state, name, value)
        state.runs, state.ended = self.runs, self.ended
        state.recall()
        return state

    @property
    def digests(self) -> set[str]:
        """Of the topologies that its runs pin."""
        ended = {one.run.topology for one in self.ended.values() if one.run is not None}
        return ended.union(run.topology for run in self.runs.values())


def _slices(rows: list[Any], rows_max: int) -> Iterator[list[Any]]:
    """The rows in lists of at most `rows_max`."""
    left = iter(rows)
    while taken := list(islice(left, rows_max)):
        yield taken
