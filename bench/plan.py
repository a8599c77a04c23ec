"""The parts of `make bench`, their order and their durations. Pure; bench/full.py runs them.

A part needs time to prepare (processes are started, topics made, a limit is measured) and measures for a given time. If
a machine is so slow that the whole would take too long, the remaining parts measure for less time.
"""

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

MINUTES: Final = 19.0
"""The whole may take, so that `make bench` of a clean clone, which installs first, ends within twenty."""
SPARE_S: Final = 27.0
"""That the plan leaves of it: for the pages, and for parts that take longer than here."""
SHORTEST: Final = 0.25
"""Smallest share of the planned time for which a part measures."""
EMBEDDED: Final[Mapping[str, tuple[float, float]]] = {
    "hop": (5, 12),
    "run1": (8, 8),
    "run3": (6, 8),
    "join": (4, 4),
    "fan": (4, 4),
    "latency": (12, 4),
    "scale": (6, 14),
    "hotkey": (4, 6),
    "payload": (4, 10),
    "fold": (4, 3),
    "replay": (2, 4),
    "replay_agent": (1, 4),
    "board": (4, 1),
    "coldstart": (5, 3),
    "memory": (8, 2),
    "recovery": (5, 9),
}
"""Workload → seconds it measures, seconds it takes beside them; with the embedded log, and those without a log."""
LONG: Final[Mapping[str, tuple[float, float]]] = {"io": (30, 10), "state": (30, 50)}
"""The same for those that are not shortened: with so much time they measure the most of what they can, ten thousand
waiting tasks and a million open runs."""
KAFKA: Final[Mapping[str, tuple[float, float]]] = {
    "join": (4, 8),
    "fan": (4, 6),
    "payload": (4, 16),
    "hop": (5, 22),
    "run1": (8, 20),
    "run3": (6, 20),
    "latency": (12, 6),
    "hotkey": (4, 10),
    "io": (8, 8),
    "coldstart": (4, 4),
    "memory": (8, 3),
    "replay": (2, 6),
    "recovery": (5, 11),
}
"""The same on Kafka. The least important come first, since a broker is slow after its start."""
BY_HAND: Final = ("soak",)
"""Not run: it says something only after a quarter of an hour."""
GROWTH: Final = (2.0, 30.0)
"""A point, of which there are six."""
GROWTH_POINTS: Final = 6
ROUNDS: Final = 5
LATENCY_ROUNDS: Final = 2
PEERS: Final[Mapping[str, tuple[float, float, int]]] = {
    "hop": (1.2, 160, 7),
    "run1": (2.0, 105, 4),
    "run3": (2.5, 45, 2),
}
"""Workload → seconds a side and round, seconds beside all of them (kills included), sides."""
ON_KAFKA, EMBEDDED_ONLY = "on kafka", "embedded"
"""Our side in a comparison of runs."""
LATENCY: Final = (3.0, 20.0, 2)
"""The same of latency beside the skeleton, which has its own module."""
PEERS_SETUP_S: Final = 50.0
PAGES_S: Final = 15.0


class Part(NamedTuple):
    """One process: `python -m MODULE ARGUMENTS`, with the rest of its time as `--for` or `--seconds`."""

    what: str
    module: str
    arguments: tuple[str, ...] = ()
    seconds: float = 0.0
    """That one point, side or workload measures; 0 for parts that measure nothing."""
    times: int = 1
    """Points, or sides and rounds, of `seconds` each."""
    beside_s: float = 0.0
    option: str = "--for"
    needs: str = ""
    """`broker`, `peers`, or both: what must have come to be, or the part is left out."""
    fixed: bool = False
    """Whether it measures for its full time, however late it is."""

    def takes_s(self, share: float = 1.0) -> float:
        """About."""
        return self.seconds * self.times * (1.0 if self.fixed else share) + self.beside_s

    def words(self, share: float = 1.0) -> list[str]:
        """Return the arguments of `python -m`."""
        seconds = f"{max(0.05, round(self.seconds * (1.0 if self.fixed else share), 2)):g}"
        time = [self.option, seconds if self.option == "--seconds" else f"{seconds}s"] if self.seconds else []
        return [self.module, *self.arguments, *time]


def plan(to: str, log: str, *, peers: bool = True) -> list[Part]:
    """All parts. `log`: of the broker, where parts that need one put their load; `to`: where results are kept."""
    kept = ("--to", to)
    parts = [Part("the environment of the peers", "bench.peers.setup", beside_s=PEERS_SETUP_S)] if peers else []
    parts += [
        Part(f"{name} embedded", "mesh", ("bench", name, *kept), seconds, 1, beside)
        for name, (seconds, beside) in EMBEDDED.items()
    ]
    parts += [
        Part(f"{name} embedded", "mesh", ("bench", name, *kept), seconds, 1, beside, fixed=True)
        for name, (seconds, beside) in LONG.items()
    ]
    seconds, beside = GROWTH
    parts.append(Part("growth embedded", "bench.growth", kept, seconds, GROWTH_POINTS, beside))
    on_kafka = (*kept, "--log", log)
    parts += [
        Part(f"{name} on Kafka", "mesh", ("bench", name, *on_kafka), seconds, 1, beside, needs="broker")
        for name, (seconds, beside) in KAFKA.items()
    ]
    parts.append(Part("growth on Kafka", "bench.growth", on_kafka, seconds, GROWTH_POINTS, beside, needs="broker"))
    return [*parts, *(_peers(on_kafka) if peers else [])]


def _peers(on_kafka: tuple[str, ...]) -> list[Part]:
    found = []
    for workload, (seconds, beside, sides) in PEERS.items():
        options: tuple[str, ...] = ("--workload", workload, "--repeat", str(ROUNDS))
        if workload == "run1":
            options += ("--only", f"{ON_KAFKA},skeleton,restate,dbos")
        if workload == "run3":  # the same programs as of run1, which were killed there
            options += ("--only", f"{ON_KAFKA},restate", "--no-kill")
        what, times = f"peers: {workload}", sides * ROUNDS
        found.append(
            Part(what, "bench.peers", (*options, *on_kafka), seconds, times, beside, "--seconds", "peers broker")
        )
    seconds, beside, sides = LATENCY
    arguments = ("--repeat", str(LATENCY_ROUNDS), *on_kafka)
    times = sides * LATENCY_ROUNDS
    found.append(
        Part("peers: latency", "bench.peers.latency", arguments, seconds, times, beside, "--seconds", "peers broker")
    )
    return found


def without_broker(parts: Sequence[Part]) -> list[Part]:
    """Return the parts that need no broker: peers without one are compared with the embedded mesh."""
    left = []
    for part in parts:
        if part.module == "bench.peers" and "hop" not in part.arguments:
            at = part.arguments.index("--log")
            words = (*part.arguments[:at], *part.arguments[at + 2 :])
            arguments = tuple(
                word.replace(f"{ON_KAFKA},skeleton", ON_KAFKA).replace(ON_KAFKA, EMBEDDED_ONLY) for word in words
            )
            left.append(part._replace(arguments=arguments, needs="peers"))
        elif "broker" not in part.needs:
            left.append(part)
    return left


def share(parts: Sequence[Part], left_s: float) -> float:
    """Return the share of its time for which each part may measure, so that all fit: at most 1."""
    measuring = sum(part.seconds * part.times for part in parts if not part.fixed)
    beside = sum(part.takes_s(0.0) for part in parts)
    if not measuring:
        return 1.0
    return min(1.0, max(SHORTEST, (left_s - beside - PAGES_S) / measuring))
