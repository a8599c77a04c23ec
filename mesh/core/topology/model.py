"""The mesh as validated at load: which agents consume which events, within which limits. `decide` reads only this.

`loader.load` makes a Topology from topics.yaml, and `validation` refuses what cannot work. Every pattern of the
language is compiled to routes: type of event → agents that it may trigger. `decide` reads routes, never the words of
the language. Field names include units. Money is in whole millionths of a dollar, so that sums are exact.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from mesh.core.expression.condition import Condition

DAY_MS: Final = 86_400_000
TOPIC_RETENTION_MS: Final = 7 * DAY_MS
"""Default retention of ingress and egress topics; the same as Kafka's default."""
OWN_TOPICS: Final = (
    *("inbox", "outcomes", "dead", "control", "endings", "board"),
    *("checkpoints", "clock", "topologies", "redrives", "windows"),
)
"""Names of the mesh's own topics, without the prefix and without the topics of tasks."""
TASKS: Final = "tasks"
"""Topics of tasks are named `<prefix>.tasks.<agent>`."""
FAUST_GROUP: Final = "monitor-faust"
FAUST_TABLE: Final = "window-starts"
"""The group of the monitor as a Faust app, and its table. Faust names the changelog topic after both."""
SERVICE_GROUPS: Final = ("intake", "orchestrator", "monitor")
"""Services with a consumer group of their own. No agent may have one of these names."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of every run. None: no limit of this kind."""

    depth_max: int = 16
    tasks_max: int = 256
    fanout_max: int = 64
    visits_max: int = 16
    deadline_ms: int = 60_000
    pause_ms: int = 86_400_000
    """The longest pause of a run. Its deadline moves by the length of the pause."""
    cascade_max: int = 3
    """The number of agents that may fail in sequence on one path. One more pauses the run before the next agent."""
    payload_bytes_max: int = 262_144
    state_bytes_max: int = 1_048_576
    usd_micros_max: int | None = None
    tokens_max: int | None = None


@dataclass(frozen=True, slots=True)
class Retry:
    """The number and the times of attempts of a task. Delays: `first · factor^(n-1)`, capped, with jitter from ids."""

    attempts_max: int = 3
    first_ms: int = 200
    factor: float = 2.0
    delay_ms_max: int = 10_000
    jitter: float = 0.2
    final: tuple[str, ...] = ()
    """Reason codes and classes of exceptions (`ValueError`, `package.module.Broken`) that are not retried.
    They are compared by name: a subclass of a named class is not final. A group is final if all its exceptions are."""


@dataclass(frozen=True, slots=True)
class BreakerRule:
    """The rule of a breaker: it opens after `failures_max` failures in a row, for `open_ms`; then one task tries it."""

    failures_max: int = 5
    open_ms: int = 30_000


@dataclass(frozen=True, slots=True)
class AgentSpec:
    """One agent as declared. `run` is `module:function`; `on`: the types it consumes; `join`: it needs all of them."""

    name: str
    run: str
    on: tuple[str, ...]
    emits: tuple[str, ...]
    join: bool = False
    when: Condition | None = None
    timeout_ms: int = 30_000
    retry: Retry = field(default_factory=Retry)
    fallback: tuple[str, ...] = ()
    """Agents that get its input, in this order, when it failed for good or its breaker is open."""
    breaker: BreakerRule | None = None
    visits_max: int | None = None
    lanes: int = 64
    cache_ms: int | None = None
    """The time that answers stay on the board, for a task that is delivered again. None: they are not stored."""
    key: str | None = None
    """The path of the payload field that orders this agent's tasks. None: they have no order."""
    reserve_usd_micros: int = 0
    reserve_tokens: int = 0
    cyclic: bool = False
    """Derived: this agent is on a cycle of the graph, so its inputs are remembered along the path."""
    line: int = 0
    faust: str = ""
    """The id of the Faust app that runs this agent, which is its consumer group. Empty: workers of the mesh run it."""
    ignores: bool = False
    """`otherwise: ignore`: its `when` may be false for an event that no other agent takes."""


@dataclass(frozen=True, slots=True)
class Row:
    """A route: one agent that an event of a type may trigger. `join`: the types that must all be there; (): no join."""

    agent: AgentSpec
    join: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Retention:
    """Retention by kind of topic, written to Kafka's `retention.ms`. -1: records are kept forever."""

    inbox_ms: int = 30 * DAY_MS
    outcomes_ms: int = 30 * DAY_MS
    dead_ms: int = 90 * DAY_MS
    tasks_ms: int = 7 * DAY_MS


@dataclass(frozen=True, slots=True)
class TopicRule:
    """A domain topic at the edge of the mesh."""

    name: str
    ingress: str | None = None
    """The type of ingress records that have none."""
    egress: tuple[str, ...] = ()
    key: str | None = None
    """The path of the payload field that keys egress records. On an ingress topic: the ordering key, if `ordered`."""
    id: str | None = None
    """The path of the payload field with the event id, for ingress records that have none."""
    partitions: int = 6
    line: int = 0
    join: bool = False
    """Records of this ingress topic may name the run that they join, and may come from agents of another mesh."""
    ordered: bool = False
    """Events with equal ordering keys begin in the order of their ingress partition."""
    retention_ms: int = TOPIC_RETENTION_MS
    """The retention of its records. -1: forever."""


ALERT_SAMPLES_MIN: Final = 10
"""One failure of one answer must not stop an agent."""


class AlertRule(NamedTuple):
    """A bound of a number (`core.metrics.definitions`) over the last `length_ms`. Decisions do not depend on it."""

    name: str
    number: str
    above: bool
    """Whether a value above the bound alerts, else one below it."""
    bound: float
    """In the unit of the number; a share from 0 to 1."""
    length_ms: int
    of: str = ""
    """`mesh`, or one agent; "": each agent on its own."""
    stops: bool = False
    """Whether the agent is stopped, for the mesh all agents, as by `mesh stop`."""
    text: str = ""
    """The condition as written."""
    samples_min: int = ALERT_SAMPLES_MIN
    """Values that a share, a percentile or a mean must rest on to alert."""


@dataclass(frozen=True, slots=True)
class Topology:
    """A validated mesh."""

    name: str
    digest: str
    """The first 16 hex digits of the SHA-256 of the canonical form. It is pinned to each run."""
    limits: Limits
    agents: Mapping[str, AgentSpec]
    topics: Mapping[str, TopicRule]
    prefix: str = "mesh"
    inbox_partitions: int = 6
    rows: Mapping[str, tuple[Row, ...]] = field(default_factory=dict)
    """Derived: type → its routes, in the order of declaration."""
    egress: Mapping[str, TopicRule] = field(default_factory=dict)
    """Derived: type → its egress topic."""
    ingress: Mapping[str, TopicRule] = field(default_factory=dict)
    """Derived: entry type → its ingress topic."""
    breaking: frozenset[str] = frozenset()
    """Derived: agents that have a breaker."""
    path: str = "topics.yaml"
    chaos: bool = False
    """Deliberate faults may be injected into this mesh."""
    retention: Retention = field(default_factory=Retention)
    alerts: Mapping[str, AlertRule] = field(default_factory=dict)

    @property
    def ordered(self) -> bool:
        """Whether an ingress topic keeps the order of its events. Then no append may overtake one that failed."""
        return any(rule.ordered for rule in self.topics.values())

    @property
    def inbox(self) -> str:
        return f"{self.prefix}.inbox"

    @property
    def outcomes(self) -> str:
        return f"{self.prefix}.outcomes"

    @property
    def dead(self) -> str:
        return f"{self.prefix}.dead"

    @property
    def control(self) -> str:
        return f"{self.prefix}.control"

    @property
    def endings(self) -> str:
        return f"{self.prefix}.endings"

    @property
    def board(self) -> str:
        return f"{self.prefix}.board"

    @property
    def checkpoints(self) -> str:
        return f"{self.prefix}.checkpoints"

    @property
    def clock(self) -> str:
        return f"{self.prefix}.clock"

    @property
    def topologies(self) -> str:
        return f"{self.prefix}.topologies"

    @property
    def windows(self) -> str:
        return f"{self.prefix}.windows"

    def input_types(self, agent: str) -> tuple[str, ...]:
        """Return the types that an agent gets: those of its `on`, and those of agents that it is a fallback of."""
        others = (spec.on for spec in self.agents.values() if agent in spec.fallback)
        return tuple(dict.fromkeys([*self.agents[agent].on, *(type for types in others for type in types)]))

    def tasks(self, agent: str) -> str:
        """Return the topic of an agent's tasks."""
        return f"{self.prefix}.{TASKS}.{agent}"

    def group(self, reader: str) -> str:
        """Return the consumer group of an agent's workers, or of one of SERVICE_GROUPS."""
        spec = self.agents.get(reader)
        return spec.faust if spec is not None and spec.faust else f"{self.prefix}.{reader}"
