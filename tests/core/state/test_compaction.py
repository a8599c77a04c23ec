"""Checkpoints in pieces: whatever is written, lost and loaded between, the fold goes on as if it had never stopped."""

from dataclasses import dataclass, field
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mesh.core.protocol.event import NO_USAGE, Event, Fault, Part
from mesh.core.protocol.record import StoredRecord
from mesh.core.run.effects import Effect, PublishTask
from mesh.core.state.checkpoint import CHUNK_ROWS, CheckpointLoader, CommitNote, Extent, Snapshot
from mesh.core.state.compaction import PIECES_MAX, RECORDS_FREE, Piece, extend_chain
from mesh.core.state.partition_state import ENDED_OFFSETS_MAX, Partition
from mesh.core.state.row_codec import current_codec
from mesh.core.task.result import failure_event, success_event
from mesh.core.topology.model import Retry, Topology
from tests.builders import agent, event, record, topology
from tests.core.state.test_checkpoint import content
from tests.core.world import World

MANY = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
DESK = topology(plan=agent("ask -> planned", retry=Retry(attempts_max=2)), ship="planned -> shipped")


@dataclass
class Paper:
    """Pieces on a log that only grows, and the chain that stands: (place, chunks) and what a keeper knows of them."""

    topology: Topology
    window: int = ENDED_OFFSETS_MAX
    chunks: dict[Extent, list[bytes]] = field(default_factory=dict)
    chain: list[Piece] = field(default_factory=list)
    offset: int = 0
    end: int = 0
    written: int = 0
    lengths: list[int] = field(default_factory=list)

    def write(self, state: Partition, *, quick: bool = False, lost: bool = False) -> None:
        """Write the next piece. `lost`: no commit ever names it."""
        touched = [id for id, at in (state.touched or {}).items() if at >= self.offset]
        live = len(state.runs) + len(state.ended)
        stays, ids = extend_chain(self.chain, touched, live, quick=quick)
        snapshot = Snapshot(state, ids, self.offset)
        chunks = list(snapshot.chunks())
        place = Extent(self.end, self.end + len(chunks) - 1, len(chunks))
        self.end += len(chunks)
        self.written += snapshot.rows
        if not lost:
            self.chunks[place] = chunks
            self.chain, self.offset = [*stays, Piece(place, snapshot.rows, ids or ())], state.offset
            self.lengths.append(len(self.chain))

    def load(self) -> Partition:
        """The state as of the last piece; what is known of the chain afterwards is what was known before."""
        loading = CheckpointLoader()
        for piece in self.chain:
            for chunk in self.chunks[piece.place]:
                loading.feed(chunk)
        known = [Piece(one.place, *stored) for one, stored in zip(self.chain, loading.pieces, strict=True)]
        assert [(one.rows, set(one.ids)) for one in known] == [(one.rows, set(one.ids)) for one in self.chain]
        self.chain = known
        return tracked(loading.partition(self.topology), self.window)


def tracked(state: Partition, window: int) -> Partition:
    """Let changes be tracked, and runs that ended be remembered for so many offsets."""
    state.touched, state.ended_offsets_max = {}, window
    return state


def fresh(mesh: Topology, window: int = ENDED_OFFSETS_MAX) -> Partition:
    return tracked(Partition(mesh, number=0, partitions=1), window)


def busy(seed: int, records: int, runs: int, window: int) -> list[StoredRecord]:
    """An inbox of many runs, of which some fail and are redriven, are cancelled, are asked for again later."""
    random, inbox = Random(seed), []
    state, tasks, of, offset = fresh(DESK, window), list[Event](), dict[str, str](), 0
    for n in range(records):
        offset += random.choice((1, 1, 1, 7))
        run_id = f"run-{random.randrange(runs)}"
        chance = random.random()
        if tasks and chance < 0.5:
            task = tasks.pop(random.randrange(len(tasks)))
            parts = [Part("planned" if task.agent == "plan" else "shipped", b"1")]
            fault = Fault("boom", "it broke", retryable=random.random() < 0.7)
            sent = (
                failure_event(task, fault, NO_USAGE) if random.random() < 0.3 else success_event(task, parts, NO_USAGE)
            )
        elif chance < 0.6:
            sent = event("cancelled", id=f"c{n}", run_id=run_id)
        elif chance < 0.75 and (
            dead := [task for one in state.ended.values() if one.run for task in one.run.trouble.dead]
        ):
            last = random.choice(dead)
            sent = event("redriven", id=f"{last.id}:r{n}", run_id=of[last.id], task_id=last.id, agent=last.agent)
        else:
            sent = event(id=f"r{n}", run_id=run_id, data=b'{"n":%d}' % n)
        inbox.append(record(sent, offset))
        effects = state.step(inbox[-1])
        tasks += [effect.event for effect in effects if isinstance(effect, PublishTask)]
        of.update((effect.event.task_id, effect.event.run_id) for effect in effects if isinstance(effect, PublishTask))
    return inbox


def stopping(
    inbox: list[StoredRecord], mesh: Topology, random: Random, often: float, window: int = ENDED_OFFSETS_MAX
) -> tuple[Partition, Paper, bool]:
    """Fold with pieces at random points, some of them lost, and begin again from what stands; compare all the way."""
    whole, state, paper = fresh(mesh, window), fresh(mesh, window), Paper(mesh, window)
    paper.write(state)
    cold = False
    effects: list[list[Effect]] = []
    done = 0
    while done < len(inbox):
        stored = inbox[done]
        if len(effects) == done:
            effects.append(whole.step(stored))
        assert state.step(stored) == effects[done]
        done += 1
        if random.random() < often:
            paper.write(state, quick=random.random() < 0.5, lost=random.random() < 0.2)
            assert content(paper.load()) == content(upto(inbox, mesh, paper.offset, window))
        if random.random() < often / 2:
            state = paper.load()
            cold = cold or bool(state.runs.cold)
            done = sum(one.offset < paper.offset for one in inbox)
    assert content(state) == content(whole)
    assert {
        id: row if isinstance(row, bytes) else current_codec().write_run(row) for id, row in state.runs.rows().items()
    } == {id: current_codec().write_run(run) for id, run in whole.runs.items()}
    return state, paper, cold


def upto(inbox: list[StoredRecord], mesh: Topology, offset: int, window: int) -> Partition:
    """Return the state of an uninterrupted fold at this offset."""
    state = fresh(mesh, window)
    for stored in inbox:
        if stored.offset < offset:
            state.step(stored)
    return state


@MANY
@given(st.integers(0, 2**32 - 1), st.sampled_from((0.05, 0.2, 0.6)))
def test_any_run_goes_on_from_any_chain_as_if_it_had_never_been_written(seed: int, often: float) -> None:
    world = World(seed)
    world.live()
    stopping(world.inbox, world.topology, Random(seed), often)


@pytest.mark.parametrize("window", [3, 20, 100_000])
@pytest.mark.parametrize("seed", range(8))
def test_many_runs_go_on_so_whatever_is_forgotten_meanwhile(seed: int, window: int) -> None:
    _, paper, cold = stopping(busy(seed, 120, 40, window), DESK, Random(seed), 0.25, window)
    assert cold, "some runs came back as rows"
    assert max(paper.lengths) > 1, "there were chains"


def test_a_run_that_was_forgotten_is_not_found_again_in_an_old_piece() -> None:
    state, paper = fresh(DESK, window=5), Paper(DESK, window=5)
    for n in range(40):
        state.step(record(event(id=f"r{n}", run_id=f"run-{n}"), n))
    paper.write(state)
    state.step(record(event("cancelled", id="c", run_id="run-0"), 40))
    paper.write(state)
    state.step(record(event("cancelled", id="c", run_id="run-1"), 50))
    paper.write(state)
    assert len(paper.chain) == 2, "the first is too large to be written again"
    again = paper.load()
    assert ("run-0" in again.runs, "run-0" in again.ended, "run-1" in again.ended) == (False, False, True)
    assert content(again) == content(state)


# ------------------------------------------------------------------------------------------------------- what it costs


def pieces(*rows: int, records: int = 2) -> list[Piece]:
    """A chain of pieces of so many rows, one behind the other."""
    return [
        Piece(
            Extent(records * n, records * n + records - 1, records),
            size,
            [f"{n}-{i}" for i in range(size if n else 0)],
        )
        for n, size in enumerate(rows)
    ]


@pytest.mark.parametrize(
    ("rows", "touched", "stays", "ids"),
    [
        ([], 5, 0, None),
        ([100], 5, 1, 5),
        ([100], 50, 0, None),
        ([1_000, 11], 5, 2, 5),
        ([1_000, 10], 5, 1, 15),
        ([1_000, 100, 10], 5, 2, 15),
        ([1_000, 30, 10], 5, 1, 45),
        ([1_000, 500, 30, 10], 225, 0, None),
        ([1_000, 0], 0, 1, 0),
        ([1_000], 0, 1, 0),
    ],
)
def test_a_piece_takes_in_those_before_it_that_are_at_most_twice_as_large(
    rows: list[int], touched: int, stays: int, ids: int | None
) -> None:
    left, found = extend_chain(pieces(*rows), [f"t{n}" for n in range(touched)], sum(rows))
    assert (len(left), found if found is None else len(found)) == (stays, ids)


def test_in_a_hurry_only_little_is_taken_in_unless_there_are_too_many_pieces() -> None:
    small = [f"t{n}" for n in range(600)]
    left, ids = extend_chain(pieces(100_000, 1_100, 10), small, 100_000, quick=True)
    assert (len(left), len(ids or ())) == (2, 610)
    left, ids = extend_chain(pieces(1_200), small, 1_200, quick=True)
    assert (len(left), len(ids or ())) == (1, 600)
    long = pieces(*(100_000 for _ in range(PIECES_MAX)))
    assert len(extend_chain(long, small, 10**7, quick=True)[0]) == PIECES_MAX
    assert extend_chain(long, ["t"] * 1 + [f"u{n}" for n in range(50_000)], 10**6, quick=True)[1] is None
    assert len(extend_chain(pieces(1_200), small, 1_200)[0]) == 0


def test_when_most_rows_are_obsolete_all_are_written_again() -> None:
    chain = pieces(1_000, 10, records=20)
    far = 2 * 40 + RECORDS_FREE
    for last, anew in ((far - 1, False), (far, True)):
        late = [chain[0], chain[1]._replace(place=Extent(last - 19, last, 20))]
        assert (extend_chain(late, ["x"], 1_000)[1] is None) is anew
        assert extend_chain(late, ["x"], 1_000, quick=True)[1] is not None
    for live, anew in ((1_011 // 2, False), ((1_011 - CHUNK_ROWS) // 2, True)):
        assert (extend_chain(chain, ["x"], live)[1] is None) is anew


def test_a_row_is_written_about_as_often_as_their_number_can_be_halved_and_a_chain_is_as_long() -> None:
    """20,000 runs open, 200 touched at a time, each about ten times in all."""
    random, chain, end, written, lengths, lying = Random(1), list[Piece](), 0, 0, [], 0
    live = 0
    for _ in range(1_000):
        touched = {f"run-{random.randrange(20_000)}" for _ in range(200)}
        live = min(20_000, live + 200)
        stays, ids = extend_chain(chain, touched, live)
        rows = live if ids is None else len(ids)
        records = 1 + -(-rows // CHUNK_ROWS)
        written, end = written + rows, end + records
        chain = [*stays, Piece(Extent(end - records, end - 1, records), rows, ids or ())]
        lengths.append(len(chain))
        lying = max(lying, end - chain[0].place.first)
    assert max(lengths) <= 8
    assert written / 200_000 < 8, "rows written for each that was touched"
    assert lying < 4 * 20_000 / CHUNK_ROWS, "the room is a few times that of the state"
    assert len(CommitNote("d" * 16, 2**40, tuple(piece.place for piece in chain)).text()) < 500


def test_endless_small_pieces_do_not_pile_up() -> None:
    chain, end, lying = pieces(50_000, records=400), 400, 0
    for n in range(5_000):
        stays, ids = extend_chain(chain, [f"run-{n % 3}"], 50_000, quick=n % 2 == 0)
        records = 400 if ids is None else 2
        chain = [
            *stays,
            Piece(Extent(end, end + records - 1, records), 50_000 if ids is None else len(ids), ids or ()),
        ]
        end += records
        lying = max(lying, end - chain[0].place.first)
        assert len(chain) <= 4
    assert lying < 3 * 400
