"""Checkpoints: the state of an inbox partition as bytes, and back; the commit note that names a checkpoint. Pure.

    for chunk in Snapshot(state).chunks(): ...        # in slices, between batches, consistent as of one offset
    for chunk in Snapshot(state, ids).chunks(): ...   # a piece: only these runs, what they are now
    loader = CheckpointLoader(); loader.feed(chunk); ...; state = loader.partition(topology, pinned)

A checkpoint is a chain of pieces. The first piece is whole. Each further one holds the runs that were touched since
the piece before it; `core.state.compaction` decides which pieces it replaces. The latest row of a run counts. The small
parts of the state (offset, switches and breakers) are whole in each piece. A loaded state folds further records exactly
as the state that was written does.

A chunk is lines of text: its kind with the ids of its rows, then one row a line. So rows are loaded without parsing
them, and rows that were not used since are written again byte for byte. A row that is not used is not validated here.
The log and the checksum of its compression detect damage (`runtime.checkpoint_store`).

A run is a value: `decide` works on a copy and replaces it, and a run never changes. So a shallow copy of the table of
runs is the state as of one offset, however long its writing takes. A run that is not touched between two pieces is kept
as its written row from then on.

The *note* is the metadata text of every commit of the orchestrator. It names the current checkpoint, and the topology
and rules under which all later records were decided. So a reader of the committed offset also reads the name of a
checkpoint. That checkpoint is durable, lies at or before that offset, and was named by the owner of the partition.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, TypeVar

import orjson

from mesh.core.run.state import Ended, Run
from mesh.core.state.lazy_table import Table, number
from mesh.core.state.partition_state import FACTS, RULES, Partition
from mesh.core.state.row_codec import NO_TOPOLOGY, current_codec, read_ended, read_run, readers, topology_of
from mesh.core.topology.model import Topology
from mesh.core.topology.shape import Shapes, ShapeUnknown

SCHEMA: Final = 2
"""Version of the format: raised when fields that were added with a default are not enough. No release wrote
version 1."""
CHUNK_ROWS: Final = 128
"""Open runs in one chunk; a chunk of runs that ended has eight times as many. About 2 ms of work."""
Value = TypeVar("Value")


class CheckpointUnreadable(ValueError):
    """Error: the bytes are no checkpoint that this version understands, or are incomplete. The message says which."""


class CheckpointNewer(CheckpointUnreadable):
    """Error: a newer version of the mesh wrote it. This version must not decide its records again."""


class Extent(NamedTuple):
    """Position of a piece of a checkpoint in its partition of mesh.checkpoints."""

    first: int
    """Offset of its first record. It is also the piece's name, and unique."""
    last: int
    records: int


@dataclass(frozen=True, slots=True)
class CommitNote:
    """Content of the metadata of a commit; see the module. `offset` is that of the checkpoint: the next to fold."""

    topology: str
    """Digest of the topology under which new runs were opened from `offset` on."""
    offset: int
    checkpoint: tuple[Extent, ...] = ()
    """Pieces of the checkpoint, in order; without any the state at `offset` is empty."""
    rules: int = RULES

    def text(self) -> str:
        """Return the note as JSON: about 100 bytes, and 20 for each piece."""
        return orjson.dumps(
            {
                "v": SCHEMA,
                "rules": self.rules,
                "topology": self.topology,
                "offset": self.offset,
                "checkpoint": [tuple(place) for place in self.checkpoint],
            }
        ).decode()


def read_note(metadata: str) -> CommitNote:
    """Read the note in a commit's metadata. Raises CheckpointUnreadable when it is no note."""
    try:
        stored = orjson.loads(metadata)
        if stored["v"] != SCHEMA:
            raise _unknown(stored["v"])(f"the note is of version {stored['v']!r}, known is {SCHEMA}")
        pieces = tuple(Extent(int(first), int(last), int(records)) for first, last, records in stored["checkpoint"])
        return CommitNote(str(stored["topology"]), int(stored["offset"]), pieces, int(stored["rules"]))
    except CheckpointUnreadable:
        raise
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointUnreadable(f"{metadata[:100]!r} is not a note of a checkpoint: {error}") from error


def _unknown(version: object) -> type[CheckpointUnreadable]:
    return CheckpointNewer if isinstance(version, int) and version > SCHEMA else CheckpointUnreadable


class Snapshot:
    """The state of a partition at the time of creation. It can be written later while the partition goes on.

    `ids`: only these runs, whether open, ended or forgotten, which makes a piece; None: all, which makes a whole piece.
    When it is written, the state keeps rows instead of values for runs that are unlikely to be used. These are runs
    that ended, and open runs that were not touched since the offset `since`.
    """

    def __init__(self, state: Partition, ids: Collection[str] | None = None, since: int = 0) -> None:
        self._state = state
        self._since = since
        self.offset = state.offset
        self.topology = state.topology.digest
        self.ids = ids
        self.runs: dict[str, Run | bytes] = {}
        self.ended: dict[str, Ended | bytes] = {}
        self.gone: list[str] = []
        """Ids of runs that are neither open nor remembered any more."""
        if ids is None:
            self.runs, self.ended = state.runs.rows(), state.ended.rows()
        for id in ids or ():
            if (run := state.runs.raw(id)) is not None:
                self.runs[id] = run
            elif (ended := state.ended.raw(id)) is not None:
                self.ended[id] = ended
            else:
                self.gone.append(id)
        shapes = Shapes()
        facts = {name: shapes.plain(hint)(getattr(state, name)) for name, hint in FACTS.items()}
        self._head = {
            "schema": SCHEMA,
            "rules": RULES,
            "number": state.number,
            "partitions": state.partitions,
            "topology": self.topology,
            "facts": facts,
            "whole": ids is None,
            "runs": len(self.runs),
            "ended": len(self.ended),
            "gone": len(self.gone),
            "fields": shapes.fields | current_codec().fields,
        }

    @property
    def rows(self) -> int:
        """Return the number of rows, with the ids of `gone`."""
        return len(self.runs) + len(self.ended) + len(self.gone)

    def chunks(self, rows_max: int = CHUNK_ROWS) -> Iterator[bytes]:
        """Yield the chunks of the piece in order. Each one is made when it is requested."""
        yield b"state " + orjson.dumps(self._head)
        yield from _chunks(b"runs", self.runs, self._run, rows_max)
        yield from _chunks(b"ended", self.ended, self._ended, rows_max * 8)
        for at in range(0, len(self.gone), rows_max * 8):
            yield _line(b"gone", self.gone[at : at + rows_max * 8])

    def _run(self, id: str, run: Run) -> bytes:
        row = current_codec().write_run(run)
        if self._state.touched is not None and self._state.touched.get(id, -1) < self._since:
            self._state.runs.encode_idle(id, run, row)
        return row

    def _ended(self, id: str, ended: Ended) -> bytes:
        row = current_codec().write_ended(ended)
        self._state.ended.encode_idle(id, ended, row)
        return row


def _chunks(
    word: bytes, rows: Mapping[str, Value | bytes], write: Callable[[str, Value], bytes], rows_max: int
) -> Iterator[bytes]:
    ids = list(rows)
    for at in range(0, len(ids), rows_max):
        some = ids[at : at + rows_max]
        lines = (one if isinstance(one := rows[id], bytes) else write(id, one) for id in some)
        yield b"\n".join([_line(word, some), *lines])


def _line(word: bytes, ids: Sequence[str]) -> bytes:
    return word + b" " + " ".join(ids).encode()


class CheckpointLoader:
    """Loader of a checkpoint. Feed its chunks in order, piece after piece, then call `partition`."""

    def __init__(self) -> None:
        self.pieces: list[tuple[int, list[str]]] = []
        """Number of rows and their ids, by piece; a whole piece has no ids here."""
        self.digests: set[str] = set()
        """Digests of the topologies that its runs pin, perhaps also of runs that ended in a later piece."""
        self._head: Mapping[str, Any] = {}
        self._facts: dict[str, Any] = {}
        self._found: dict[str, int] = {}
        self._eager: tuple[Callable[[bytes], Run], Callable[[bytes], Ended]] | None = None
        """Readers of the rows of this piece if another version of the code wrote them: they are read at once."""
        self._start_over()

    def _start_over(self) -> None:
        self._runs: Table[Run] = Table(read_run)
        self._ended: Table[Ended] = Table(read_ended)
        self._ends: list[tuple[int, str]] = []

    def feed(self, chunk: bytes) -> None:
        """Load the next chunk. Raises CheckpointUnreadable, or CheckpointNewer for one of a newer version."""
        try:
            line, _, rest = chunk.partition(b"\n")
            word, _, stored = line.partition(b" ")
            if word == b"state":
                self._begin(orjson.loads(stored))
            elif word in (b"runs", b"ended", b"gone") and self._head:
                self._take(word.decode(), stored.decode().split(" "), rest.split(b"\n") if rest else [])
            else:
                raise CheckpointUnreadable(f"a chunk of an unknown kind, {word[:20]!r}")
        except CheckpointUnreadable:
            raise
        except ShapeUnknown as error:
            raise CheckpointNewer(f"{type(error).__name__}: {error}") from error
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise CheckpointUnreadable(f"{type(error).__name__}: {error}") from error

    def _begin(self, head: Mapping[str, Any]) -> None:
        """Begin the next piece."""
        if head["schema"] != SCHEMA:
            raise _unknown(head["schema"])(f"it is of schema {head['schema']!r}, known is {SCHEMA}")
        if self._head:
            self._require_end()
        elif not head["whole"]:
            raise CheckpointUnreadable("its first piece is missing")
        unknown = sorted(head["facts"].keys() - FACTS.keys())
        if unknown:
            raise CheckpointNewer(f"it says {', '.join(unknown)} of the partition, which is not known here")
        fields, known = head["fields"], current_codec().fields
        same = all(fields.get(name) == names for name, names in known.items())
        self._eager = None if same else readers(fields)
        shapes = Shapes(fields=fields)
        self._facts = {name: shapes.value(FACTS[name])(plain) for name, plain in head["facts"].items()}
        if head["whole"]:
            self._start_over()
        self.pieces.append((head["runs"] + head["ended"] + head["gone"], []))
        self._head, self._found = head, {"runs": 0, "ended": 0, "gone": 0}

    def _take(self, word: str, ids: list[str], rows: list[bytes]) -> None:
        self._found[word] += len(ids)
        if not self._head["whole"]:
            self.pieces[-1][1].extend(ids)
            for id in ids:
                self._runs.discard(id)
                self._ended.discard(id)
        if word == "runs":
            _put(self._runs, ids, rows, self._eager and self._eager[0])
        elif word == "ended":
            _put(self._ended, ids, rows, self._eager and self._eager[1])
            self._ends.extend(zip(map(number, rows), ids, strict=True))
        self.digests.update(map(topology_of, rows))
        self.digests.discard(NO_TOPOLOGY)

    def _require_end(self) -> None:
        """Raise CheckpointUnreadable when chunks of the last piece are missing."""
        wanted = {word: self._head[word] for word in ("runs", "ended", "gone")} if self._head else "a head"
        if wanted != self._found:
            raise CheckpointUnreadable(f"it is incomplete: {wanted} expected, {self._found or 'nothing'} found")

    def partition(self, topology: Topology, pinned: Mapping[str, Topology] | None = None) -> Partition:
        """Return the state, with new runs under `topology`. Raises CheckpointUnreadable when chunks are missing."""
        self._require_end()
        head = self._head
        state = Partition(topology, number=head["number"], partitions=head["partitions"], pinned=pinned)
        for name, value in self._facts.items():
            setattr(state, name, value)
        state.runs, state.ended = self._runs, self._ended
        state.recall(self._ends)
        return state


def _put(table: Table[Value], ids: list[str], rows: list[bytes], read: Callable[[bytes], Value] | None) -> None:
    """Put rows into a table: unread, or read at once by `read` if another version of the code wrote them."""
    if read is None:
        table.cold.update(zip(ids, rows, strict=True))
    else:
        table.warm.update(zip(ids, map(read, rows), strict=True))
