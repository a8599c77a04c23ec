"""A seed → what is simulated: which mesh, on how many processes, over what kind of network, with which faults.

Swarm testing: each seed switches most kinds of faults off and the others far up, since faults hide one another. All
faults stand in one list, so that a failing seed can be made smaller by leaving some out.
"""

from collections.abc import Sequence
from random import Random
from typing import NamedTuple

from mesh.core.protocol.record import RECORD_BYTES_MIN
from tests.sim.meshes import LARGE, MESHES, topology

FAULTS_UNTIL_MS = 3_500
"""After this the world heals, and all must come to rest."""


SMALL = 0.6
"""Share of worlds with a handful of requests."""
TIGHT = 0.12
"""Share of worlds whose log takes only small records."""
CLOCKED = 0.3
"""Share of worlds in which the clocks of the brokers drift and are set."""
STEPS_MS = (1_000, 5_000, 60_000, 180_000, 1_200_000)
"""Steps by which a clock is set, forward or back."""
ROLLING = 0.12
"""Share of worlds in which topics.yaml changes."""
MIXED = 0.2
"""Share of worlds in which some processes, or all, write records of the inbox and of tasks in plain form."""
MIDDLING = 0.3
"""Share of those with a dozen."""


class Fault(NamedTuple):
    """One fault. The meaning of `target` and `arg` depends on its kind; see `faults.py`."""

    at_ms: int
    kind: str
    target: int = 0
    arg: int = 0
    for_ms: int = 0

    def __str__(self) -> str:
        return f"{self.at_ms} ms: {self.kind} target={self.target} arg={self.arg} for={self.for_ms} ms"


class Shape(NamedTuple):
    """One process: its services, and the agents that its worker runs."""

    services: tuple[str, ...]
    agents: tuple[str, ...] = ()


class Plan(NamedTuple):
    """See the module."""

    seed: int
    mesh: str
    partitions: int
    shapes: tuple[Shape, ...]
    requests: int
    faults: tuple[Fault, ...]
    slow: float = 0.0
    slow_ms: float = 0.0
    dribble: bool = False
    gap: float = 0.0
    refuse: float = 0.0
    eager: bool = False
    trouble: float = 0.1
    board: float = 0.1
    skew_ms: int = 0
    session_timeout_ms: int = 1_200
    records_max: int = 500
    killers: float = 0.0
    """Share of tasks that kill whoever begins them. In half of such worlds nothing else dies."""
    record_bytes_max: int = 0
    """The log takes no larger record, and agents say about as much as that; 0: as in service."""
    rolls: str = ""
    """Processes go over to another topics.yaml, one after the other: it `adds` or `removes` an agent and a type."""
    checkpoint_us: int = -1
    """A tail of the inbox that takes so long to fold is worth a checkpoint; -1: as in service."""
    plain: float = 0.0
    """Share of processes that are set to write records of the inbox and of tasks in plain form."""
    drift: float = 0.0
    """By at most this share the clocks of the brokers run fast or slow."""

    def writes_plain(self, process: str) -> bool:
        """Whether a process is set to write the plain form."""
        return Random(f"forms {self.seed} {process}").random() < self.plain


KINDS = (
    *("crash", "pause", "cut", "arm", "stop", "grow", "strike", "strike", "strike"),
    *(
        "retain",
        "retain",
        "silence",
        "rollback",
        "skew",
        "copy",
        "copy",
        "stale",
        "junk",
        "wish",
        "wish",
        "switch",
        "redrive",
        "redrive",
    ),
)
GENTLE = ("silence", "rollback", "skew", "stale", "junk", "wish", "switch")
"""Faults of which no process dies and that make no record twice."""
STEP = "step"
"""A fault of its own, which some worlds have besides: none of the above, so that seeds stay what they were."""


def plan_of(seed: int, *, large: bool = False) -> Plan:
    """Return the plan of a seed; it never changes. `large`: make the world large, as all once were, whatever the seed
    chooses."""
    random = Random(f"plan {seed}")
    mesh = random.choice(sorted(MESHES))
    record_bytes_max = 0 if large else _record_bytes_max(seed)
    if record_bytes_max:
        mesh = LARGE
    partitions = random.randint(1, 4)
    killers = random.choice((0.02, 0.1)) if random.random() < 0.06 else 0.0
    shapes = _shapes(random, list(topology(mesh, partitions).agents), together=random.random() < 0.3 and not killers)
    slow = random.choice((0.0, 0.0, 0.02, 0.2))
    gentle = bool(killers) and Random(f"gentle {seed}").random() < 0.5
    kinds = GENTLE if gentle else KINDS
    many = random.randint(6, 40)
    requests = many if large else _requests(seed, many)
    plan = Plan(
        seed,
        mesh,
        partitions,
        shapes,
        requests=requests,
        faults=_faults(random, len(shapes), kinds),
        slow=0.0 if gentle else slow,
        slow_ms=random.choice((10.0, 100.0, 400.0)),
        dribble=random.random() < 0.3,
        gap=random.choice((0.0, 0.0, 0.2)),
        refuse=random.choice((0.0, 0.0, 0.0, 0.05)),
        eager=random.random() < 0.5,
        trouble=random.choice((0.0, 0.05, 0.15, 0.5)),
        board=random.choice((0.0, 0.1, 0.5)),
        skew_ms=random.choice((0, 0, 50, 300)),
        session_timeout_ms=random.choice((1_000, 1_500)),
        records_max=random.choice((1, 3, 20, 500)),
        killers=killers,
        record_bytes_max=record_bytes_max,
        checkpoint_us=random.choice((-1, -1, 250, 1_000)),
    )
    rolling = Random(f"rolls {seed}")
    if rolling.random() < ROLLING and not record_bytes_max and not large:
        plan = plan._replace(rolls=rolling.choice(("adds", "removes")))
    forms = Random(f"forms {seed}")
    if forms.random() < MIXED and not record_bytes_max and not large:  # sizes depend on the form, and so do refusals
        plan = plan._replace(plain=forms.choice((0.5, 0.5, 1.0)))
    if not large:
        plan = _clocked(plan)
    if plan.checkpoint_us > 0:  # a small world has as many checkpoints as a large one
        plan = plan._replace(checkpoint_us=plan.checkpoint_us * requests // many)
    return plan


def _clocked(plan: Plan) -> Plan:
    """The plan with clocks of brokers that are wrong, by chance of its own, so that other seeds stay what they were."""
    random = Random(f"broker clocks {plan.seed}")
    if random.random() >= CLOCKED or plan.rolls:  # whether a topology was kept in time is told by two brokers' clocks
        return plan
    steps = [
        Fault(random.randint(100, FAULTS_UNTIL_MS), STEP, random.choice((0, 1, 2, 99, 99, 99)), arg)
        for _ in range(random.randint(0, 4))
        for arg in (random.choice((-1, 1)) * random.choice(STEPS_MS),)
    ]
    return plan._replace(faults=tuple(sorted((*plan.faults, *steps))), drift=random.choice((0.0, 0.001, 0.1)))


def _record_bytes_max(seed: int) -> int:
    """The limit of the log, by chance of its own, so that a seed with the usual one is the world that it was before."""
    random = Random(f"record bytes {seed}")
    if random.random() >= TIGHT:
        return 0
    return random.choice((RECORD_BYTES_MIN, RECORD_BYTES_MIN + 1_000, 2 * RECORD_BYTES_MIN))


def _requests(seed: int, many: int) -> int:
    """Return the number of requests: most worlds are small, some are large.

    Time grows with the number, the number of found mistakes hardly. The choice uses random numbers of its own, so a
    seed with `many` requests is the same as when all worlds were large.

    """
    random = Random(f"requests {seed}")
    share = random.random()
    if share < SMALL:
        return random.randint(1, 6)
    return random.randint(6, 16) if share < SMALL + MIDDLING else many


def _shapes(random: Random, agents: list[str], *, together: bool) -> tuple[Shape, ...]:
    everything = ("orchestrator", "intake", "worker")
    if together:
        return tuple(Shape(everything, tuple(agents)) for _ in range(random.randint(1, 3)))
    found = [Shape(("orchestrator",)) for _ in range(random.randint(1, 3))]
    found += [Shape(("intake",)) for _ in range(random.randint(1, 2))]
    workers = random.randint(1, 3)
    shares = [tuple(a for a in agents if random.random() < 0.6) for _ in range(workers)]
    missing = tuple(a for a in agents if not any(a in share for share in shares))
    found += [Shape(("worker",), share) for share in (*shares, missing) if share]
    return tuple(found)


def _faults(random: Random, processes: int, kinds: Sequence[str]) -> tuple[Fault, ...]:
    if random.random() < 0.05:
        return ()
    kinds = random.sample(kinds, random.randint(1, 4))
    found = []
    for _ in range(random.randint(2, 14)):
        kind = random.choice(kinds)
        found.append(
            Fault(
                random.randint(100, FAULTS_UNTIL_MS - 500),
                kind,
                random.randrange(processes) if random.random() < 0.9 else 99,
                random.choice((0, 1, 2, 3, 5, 8, 13, 21, 34, random.randint(0, 200))),
                random.choice((5, 50, 300, 1_300, 2_500)),
            )
        )
    return tuple(sorted(found))
