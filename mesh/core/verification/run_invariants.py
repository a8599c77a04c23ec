"""Check invariants of runs independently of `decide`, with accounts of tasks, paths, usage and endings.

    invariants = RunInvariants([topology])
    for record in inbox:
        before = state.runs.get(run_id)
        effects = state.step(record)
        violations += invariants.follow(event, record, before, state.runs.get(run_id), effects)

I2: a run ends once (per generation: an id of an outcome names run and generation; within the memory of the fold).
I3: an answer counts once, for an attempt that was handed out. I4: depth and path of a task follow from those of a task
of the same run, within the limits. I5: what was charged and is reserved stays within the budget when an attempt is
begun, and an outcome says what was charged. The accounts of a run are kept while it is open. `ending_invariants` checks
endings.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from mesh.core.protocol.event import FAILED, REQUESTED, SUCCEEDED, Event
from mesh.core.protocol.record import Record, coordinates
from mesh.core.run.effects import Effect, Finish, PublishTask
from mesh.core.run.state import Run
from mesh.core.state.partition_state import ENDED_OFFSETS_MAX
from mesh.core.topology.model import Topology
from mesh.core.verification.ending_invariants import EndingInvariants, finish_in
from mesh.core.verification.report import Violation


@dataclass(slots=True)
class RunAccounts:
    """Accounts of one open run. `topology` None: its first request was not seen, or its topology is unknown."""

    topology: Topology | None
    usd_micros: int = 0
    tokens: int = 0
    reserved: dict[str, tuple[int, int, int]] = field(default_factory=dict)
    """Open task → its attempt, and the usage reserved for it in micros and tokens."""
    handed_out: dict[str, int] = field(default_factory=dict)
    """Task → attempt without an answer."""
    paths: set[tuple[str, ...]] = field(default_factory=set)


class RunInvariants:
    """Checks runs; see the module. `checked` counts checks, by invariant."""

    def __init__(self, topologies: Iterable[Topology]) -> None:
        self._topologies = {topology.digest: topology for topology in topologies}
        self._books: dict[str, RunAccounts] = {}
        self._ended: dict[str, int] = {}
        """Run → offset at which it ended last, for as long as the fold remembers it, too. It shares the fold's keys:
        ids of outcomes would take three times the memory."""
        self._generations: dict[str, int] = {}
        """Run of these that a redrive opened again → generation in which it ended last."""
        self.checked: Counter[str] = Counter()
        self._laws = EndingInvariants(self._topologies, ENDED_OFFSETS_MAX, self.checked)
        self.runs = 0
        self.endings: Counter[str] = Counter()

    def follow(
        self, event: Event, record: Record, before: Run | None, after: Run | None, effects: Sequence[Effect]
    ) -> Iterator[Violation]:
        """Update the accounts with one inbox record; yield violations. `before`, `after`: states of its open run."""
        where = coordinates(record)
        finish = finish_in(effects)
        now = after if finish is None else finish.run
        books = self._books.get(event.run_id)
        if books is None and before is None and now is not None:
            self.runs += event.kind == REQUESTED
            topology = self._topologies.get(now.topology) if event.kind == REQUESTED else None
            self._books[event.run_id] = books = RunAccounts(topology)
        if books is not None and now is not None:
            if before is not None and event.kind in (SUCCEEDED, FAILED):
                yield from self._check_answered(event, where, before, now, books)
            yield from self._check_reserved(event, where, now, books)
        for effect in effects:
            if isinstance(effect, PublishTask):
                yield from self._handed_out(effect.event, event, where)
        yield from self._laws.follow(event, where, record.offset, before, now, effects)
        if finish is not None:
            yield from self._check_finished(finish, record.offset, where)

    def _check_answered(
        self, event: Event, where: str, before: Run, now: Run, books: RunAccounts
    ) -> Iterator[Violation]:
        was, still = before.open.get(event.task_id), now.open.get(event.task_id)
        if was is None or (still is not None and still.attempt == was.attempt):
            return  # it changed nothing
        self.checked["I3"] += 1
        attempt = books.handed_out.pop(was.id, None)
        if books.topology is not None and attempt != event.attempt:
            got = "none waits for an answer" if attempt is None else f"attempt {attempt} waits for its answer"
            what = f"an answer of task {was.id} counted, for attempt {event.attempt}"
            yield Violation("I3", where, what, "each attempt to be answered once", got, event.run_id)
        _, usd_micros, tokens = books.reserved.pop(was.id, (0, 0, 0))
        used_usd, used_tokens = (usd_micros, tokens) if event.usage is None else event.usage
        if books.topology is not None:
            limits = books.topology.limits
            if limits.usd_micros_max is not None:
                free = limits.usd_micros_max - books.usd_micros - sum([usd for _, usd, _ in books.reserved.values()])
                used_usd = min(used_usd, max(usd_micros, free))
            if limits.tokens_max is not None:
                free = limits.tokens_max - books.tokens - sum([tokens for _, _, tokens in books.reserved.values()])
                used_tokens = min(used_tokens, max(tokens, free))
        books.usd_micros += used_usd
        books.tokens += used_tokens

    def _check_reserved(self, event: Event, where: str, now: Run, books: RunAccounts) -> Iterator[Violation]:
        """Update the reservations of open tasks, and check the budget for new ones."""
        if books.topology is None:
            return
        new = False
        for task in now.open.values():
            known = books.reserved.get(task.id)
            if known is None or known[0] != task.attempt:
                spec = books.topology.agents[task.agent]
                books.reserved[task.id] = (task.attempt, spec.reserve_usd_micros, spec.reserve_tokens)
                new = True
        if len(books.reserved) > len(now.open):  # all open tasks have an entry now
            for id in books.reserved.keys() - now.open.keys():
                del books.reserved[id]  # a fallback replaced it
        if not new or (event.fault is not None and event.fault.code == "expired"):
            return
        self.checked["I5"] += 1
        usd_micros = books.usd_micros + sum([usd for _, usd, _ in books.reserved.values()])
        tokens = books.tokens + sum([tokens for _, _, tokens in books.reserved.values()])
        limits = books.topology.limits
        for unit, used, limit in (
            ("millionths of a dollar", usd_micros, limits.usd_micros_max),
            ("tokens", tokens, limits.tokens_max),
        ):
            if limit is not None and used > limit:
                what = "a task was begun beyond the budget of its run"
                expected = f"at most {limit} {unit} used and reserved"
                yield Violation("I5", where, what, expected, str(used), event.run_id)

    def _handed_out(self, task: Event, cause: Event, where: str) -> Iterator[Violation]:
        books = self._books.setdefault(task.run_id, RunAccounts(None))
        self.checked["I4"] += 1
        depth_max = None if books.topology is None else books.topology.limits.depth_max
        known = task.path[:-1]
        if task.path in books.paths and task.attempt > 1:
            pass
        elif task.depth != len(task.path) or task.path[-1:] != (task.agent,) or (depth_max and task.depth > depth_max):
            what = f"task {task.task_id} has depth {task.depth} and path {','.join(task.path)}"
            expected = f"a path to {task.agent!r} of at most {depth_max}"
            yield Violation("I4", where, what, expected, run_id=task.run_id)
        elif books.topology is not None and known and known not in books.paths:
            what = f"task {task.task_id} has path {','.join(task.path)}"
            yield Violation("I4", where, what, "a parent in the same run", "none with that path", task.run_id)
        elif cause.kind in (REQUESTED, SUCCEEDED) and task.attempt == 1 and task.cause_id != cause.id:
            what = f"task {task.task_id} names another cause than what caused it"
            yield Violation("I4", where, what, cause.id, task.cause_id, task.run_id)
        books.paths.add(task.path)
        books.handed_out[task.task_id] = task.attempt

    def _check_finished(self, finish: Finish, offset: int, where: str) -> Iterator[Violation]:
        run, generation = finish.run, finish.run.trouble.generation
        self.checked["I2"] += 1
        self.endings[run.ending] += 1
        while self._ended and next(iter(self._ended.values())) < offset - ENDED_OFFSETS_MAX:
            forgotten = next(iter(self._ended))
            del self._ended[forgotten]
            self._generations.pop(forgotten, None)
        ended_at = self._ended.pop(run.id, None)  # the latest ending comes last
        if ended_at is not None and generation <= self._generations.get(run.id, 0):
            what = "the run ended again under the same id"
            yield Violation("I2", where, what, "one ending", f"one at offset {ended_at} already", run.id)
        self._ended[run.id] = offset
        if generation:
            self._generations[run.id] = generation
        books = self._books.pop(run.id, None)
        if books is None or books.topology is None:
            return
        self.checked["I5"] += 1
        cut_off = [books.reserved.get(task.id, (0, 0, 0)) for task in run.open.values() if task.held is None]
        usd_micros = books.usd_micros + sum(usd for _, usd, _ in cut_off)
        tokens = books.tokens + sum(tokens for _, _, tokens in cut_off)
        if (usd_micros, tokens) != (run.usd_micros, run.tokens):
            what = "the outcome says something else than what was charged"
            got = f"{run.usd_micros} millionths of a dollar and {run.tokens} tokens"
            yield Violation("I5", where, what, f"{usd_micros} and {tokens}", got, run.id)
