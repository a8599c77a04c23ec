"""Every key of topics.yaml with its meaning: section → (words of the loader, key → value, default and meaning).

The words come from mesh/core/topology/loader.py, the defaults from mesh/core/topology/model.py. A word without a line
here, or a line without a word, is an error of `make docs`.
"""

from typing import Final, NamedTuple

from mesh.core.topology import alert_rules, loader
from mesh.core.topology.model import (
    ALERT_SAMPLES_MIN,
    TOPIC_RETENTION_MS,
    AgentSpec,
    BreakerRule,
    Limits,
    Retention,
    Retry,
    Topology,
)

UNITS: Final = ((86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1_000, "s"), (1, "ms"))
AGENT: Final = AgentSpec("", "", (), ())
LIMITS, RETENTION, RETRY, BREAKER = Limits(), Retention(), Retry(), BreakerRule()
MESH: Final = Topology("mesh", "", LIMITS, {}, {})


class Key(NamedTuple):
    """One key: the value that it takes, its default, its meaning."""

    value: str
    default: str
    meaning: str


class Section(NamedTuple):
    """A mapping of the file: the words that the loader knows there, and a key for each."""

    title: str
    words: tuple[str, ...]
    keys: dict[str, Key]


def duration(ms: int) -> str:
    """Format milliseconds as topics.yaml writes them."""
    return next(f"`{ms // unit}{name}`" for unit, name in UNITS if ms % unit == 0)


def size(count: int) -> str:
    """Format bytes as topics.yaml writes them."""
    return f"`{count >> 20}MB`" if count % (1 << 20) == 0 else f"`{count >> 10}KB`"


def code(value: object) -> str:
    """Format a value as code."""
    return f"`{value}`"


NONE: Final = "–"
REQUIRED: Final = "required"
COUNT: Final = "whole number"
DURATION: Final = "duration"

SECTIONS: Final = (
    Section(
        "The file",
        loader.TOP_WORDS,
        {
            "mesh": Key("mapping", "see below", "The name of the mesh and the limits of its runs."),
            "topics": Key("topic name → mapping", NONE, "Topics by which events enter and leave the mesh."),
            "agents": Key("agent name → mapping", REQUIRED, f"The agents, at most {loader.AGENTS_MAX:,}."),
            "alerts": Key("alert name → condition or mapping", NONE, "Bounds of numbers, watched by the monitor."),
        },
    ),
    Section(
        "`mesh:`",
        loader.MESH_WORDS,
        {
            "name": Key("name", code(MESH.name), "Name of the mesh. It cannot be changed in place."),
            "prefix": Key("name", "the name", "Beginning of the names of topics, consumer groups and board keys."),
            "inbox": Key(
                "`{partitions: 6}`",
                code(f"{{partitions: {MESH.inbox_partitions}}}"),
                "Partitions of `<prefix>.inbox`. The number cannot be changed in place.",
            ),
            "limits": Key("mapping", "see below", "Limits of every run."),
            "retention": Key("mapping", "see below", "How long records of the mesh's own topics are kept."),
            "chaos": Key("`true` or `false`", "`false`", "Whether `mesh break` may inject faults into this mesh."),
        },
    ),
    Section(
        "`mesh.limits:`",
        loader.LIMIT_WORDS,
        {
            "depth_max": Key(COUNT, code(LIMITS.depth_max), "Hops from the request; a longer chain is refused."),
            "tasks_max": Key(COUNT, code(LIMITS.tasks_max), "Tasks of one run."),
            "fanout_max": Key(COUNT, code(LIMITS.fanout_max), "Events that one answer may emit."),
            "visits_max": Key(COUNT, code(LIMITS.visits_max), "Tasks of one agent in one run."),
            "deadline": Key(DURATION, duration(LIMITS.deadline_ms), "Time from the request to the end of the run."),
            "payload_max": Key("size", size(LIMITS.payload_bytes_max), "Size of one payload."),
            "state_max": Key("size", size(LIMITS.state_bytes_max), "Size of the inputs that one run may hold."),
            "budget": Key(
                "`{usd: 0.50, tokens: 100_000}`", "no limit", "Money and tokens that the tasks of one run may use."
            ),
            "cascade_max": Key(
                COUNT,
                code(LIMITS.cascade_max),
                "Agents that may fail one after another on one path. One more failure pauses the run.",
            ),
            "pause": Key(
                DURATION,
                duration(LIMITS.pause_ms),
                "How long a run may stay paused. The deadline of the run stands still meanwhile.",
            ),
        },
    ),
    Section(
        "`mesh.retention:`",
        loader.RETENTION_WORDS,
        {
            "inbox": Key("duration or `forever`", duration(RETENTION.inbox_ms), "Records of `<prefix>.inbox`."),
            "outcomes": Key("duration or `forever`", duration(RETENTION.outcomes_ms), "Outcomes of runs."),
            "dead": Key("duration or `forever`", duration(RETENTION.dead_ms), "Dead letters."),
            "tasks": Key("duration or `forever`", duration(RETENTION.tasks_ms), "Tasks, of all agents."),
        },
    ),
    Section(
        "`topics.<name>:`",
        loader.TOPIC_WORDS,
        {
            "ingress": Key("type", NONE, "Type of the events that enter by this topic, one for each topic."),
            "egress": Key("type or list of types", NONE, "Types of the events that leave by this topic."),
            "key": Key(
                "path",
                "the run id",
                "Payload field that keys egress records. On an ingress topic with `order`: the ordering key.",
            ),
            "id": Key("path", "`topic:partition:offset`", "Payload field that is the event id of plain JSON records."),
            "partitions": Key(COUNT, code(6), "Partitions of the topic when `mesh topics create` makes it."),
            "join": Key(
                "`true` or `false`", "`false`", "Whether a record may name the run that it joins (`ce_correlationid`)."
            ),
            "order": Key("`key`", NONE, "Begin events with equal ordering keys in order ([order](../guide/order.md))."),
            "retention": Key("duration or `forever`", duration(TOPIC_RETENTION_MS), "How long records are kept."),
        },
    ),
    Section(
        "`agents.<name>:`",
        loader.AGENT_WORDS,
        {
            "run": Key("`module:function`", REQUIRED, "The function. The folder of topics.yaml is searched first."),
            "on": Key(
                "type, list of types or `{all: [a, b]}`",
                "required, except for fallbacks",
                "Types that the agent consumes. `all` is a join: one task when all types have arrived.",
            ),
            "when": Key("condition", NONE, "Only events for which it is true ([conditions](conditions.md))."),
            "emits": Key("type or list of types", NONE, "Types that the function may return."),
            "timeout": Key(DURATION, duration(AGENT.timeout_ms), "Time for one attempt of a task."),
            "retry": Key("mapping", "see below", "How often a failed task is tried again, and when."),
            "fallback": Key(
                "agent or list of agents", NONE, "Agents that get the input when this one failed for good."
            ),
            "breaker": Key("mapping", "none", "When to stop calling an agent that fails again and again."),
            "visits_max": Key(COUNT, "that of the mesh", "Tasks of this agent in one run."),
            "lanes": Key(COUNT, code(AGENT.lanes), "Tasks that one worker process runs at once."),
            "key": Key("path", NONE, "Payload field. Tasks with an equal value run one after the other."),
            "reserve": Key(
                "`{usd: 0.02, tokens: 1_000}`", "nothing", "Amount reserved from the budget while an attempt runs."
            ),
            "cache": Key(DURATION, "off", "How long an answer is kept on the board, for a task delivered again."),
            "faust": Key("app id", NONE, "The [Faust app](../guide/faust-apps.md) that runs the agent: its group."),
            "otherwise": Key("`ignore`", NONE, "An event for which `when` is false does not count as unrouted."),
        },
    ),
    Section(
        "`agents.<name>.retry:`",
        loader.RETRY_WORDS,
        {
            "attempts": Key(COUNT, code(RETRY.attempts_max), "Attempts of a task, the first included."),
            "first": Key(DURATION, duration(RETRY.first_ms), "Delay before the second attempt."),
            "factor": Key("number", code(RETRY.factor), "Factor by which each further delay grows."),
            "max": Key(DURATION, duration(RETRY.delay_ms_max), "The longest delay."),
            "jitter": Key("number from 0 to 1", code(RETRY.jitter), "Share of the delay that is spread, from ids."),
            "final": Key(
                "name or list of names",
                NONE,
                "Reason codes and exception classes that are not tried again. Classes are compared by name: a "
                "subclass is tried again unless it is named too.",
            ),
        },
    ),
    Section(
        "`agents.<name>.breaker:`",
        loader.BREAKER_WORDS,
        {
            "failures": Key(COUNT, code(BREAKER.failures_max), "Failures in a row that open the breaker."),
            "open": Key(DURATION, duration(BREAKER.open_ms), "How long the agent is not called. Then one event tries."),
        },
    ),
    Section(
        "`alerts.<name>:`",
        alert_rules.ALERT_WORDS,
        {
            "when": Key(
                "`NUMBER > BOUND for TIME`",
                REQUIRED,
                "A number of [metrics](metrics.md#windows), `<` or `>`, its bound (a share like `20%`, a duration, or a"
                " number), and the time it is taken over: `10s` to `1h`, `1m` by default. Instead of the mapping the"
                " condition may stand alone.",
            ),
            "of": Key("agent or `mesh`", "each agent on its own", "Whose number it is."),
            "min": Key(
                COUNT,
                code(ALERT_SAMPLES_MIN),
                "Samples that a share, a percentile or a number per run must rest on to alert: answers, runs. So one"
                " failure of one stops nothing. An agent with few answers needs a longer time, or a smaller `min`."
                " Counts, rates and `cascade_depth` alert without.",
            ),
            "then": Key("`stop`", NONE, "Stop the agent, for `mesh` all agents, until `mesh resume`."),
        },
    ),
)
