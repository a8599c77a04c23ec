"""Read `alerts:` of topics.yaml: name → bound of a number over the last time, and what happens then.

    alerts:
      failing: error_rate > 20% for 1m                       # each agent on its own
      slow:    {when: p95 > 2s for 1m, of: pricing, min: 50} # one agent, from 50 answers on
      cascade: {when: cascade_depth > 3, of: mesh, then: stop}

`core.metrics.definitions` defines the numbers; `core.metrics.alerts` compares them.
"""

import re
from collections.abc import Collection
from typing import Final

from mesh.core.errors import InvalidInput
from mesh.core.expression.field_path import excerpt
from mesh.core.suggest import did_you_mean
from mesh.core.topology.fields import FieldReader
from mesh.core.topology.model import ALERT_SAMPLES_MIN, AlertRule
from mesh.core.topology.units import duration_ms, whole
from mesh.core.topology.yaml_nodes import Node, Scalar

ALERT_WORDS: Final = ("when", "of", "min", "then")
MIN_MAX: Final = 1_000_000
MESH: Final = "mesh"
STOP: Final = "stop"
BASE_MS: Final = 10_000
FOR_MS_MAX: Final = 3_600_000
SHARE: Final = "share"
MS: Final = "ms"
NUMBER: Final = "number"
MESH_NUMBERS: Final[dict[str, str]] = {
    **dict.fromkeys(("completion_rate", "cycle_rate", "overhead"), SHARE),
    **dict.fromkeys(("decision_p95", "run_p50", "run_p95"), MS),
    **dict.fromkeys(("rate_in", "overrides"), NUMBER),
}
"""Numbers that only the whole mesh has → their unit."""
AGENT_NUMBERS: Final[dict[str, str]] = {
    **dict.fromkeys(("error_rate", "retry_rate", "timeout_rate", "fallback_rate"), SHARE),
    **dict.fromkeys(("p50", "p95", "p99", "waiting_p50", "waiting_p95", "waiting_p99"), MS),
    **dict.fromkeys(("rate", "rate_out", "cascade_depth", "context_drift"), NUMBER),
    **dict.fromkeys(("tokens", "usd", "tokens_per_run", "usd_per_run", "dead_letters", "refusals"), NUMBER),
}
"""Numbers that the mesh and each agent have → their unit."""
NUMBERS: Final = {**AGENT_NUMBERS, **MESH_NUMBERS}
_CONDITION: Final = re.compile(r"\s*([a-z0-9_]+)\s*([<>])\s*(\S+)(?:\s+for\s+(\S+))?\s*", re.ASCII)
_DECIMAL: Final = re.compile(r"[0-9]{1,15}(\.[0-9]{1,6})?", re.ASCII)
_NAME: Final = re.compile(r"[a-z][a-z0-9_-]{0,63}", re.ASCII)
EXAMPLE: Final = "NUMBER > BOUND for TIME, like `error_rate > 20% for 1m`"


def read_alerts(reader: FieldReader, node: Node | None, agents: Collection[str]) -> dict[str, AlertRule]:
    """Return the alerts of topics.yaml; problems go to `reader`."""
    found = {}
    for name, value in reader.entries("alerts", node, "a mapping of alert names").items():
        place, line = f"alerts.{name}", reader.lines[f"alerts.{name}"]
        if not _NAME.fullmatch(name):
            what = f"alerts: {excerpt(name)} is not a name"
            reader.add(line, what, "Use lower-case letters, digits, `_` and `-`, a letter first, at most 64 characters")
            continue
        if isinstance(value, Scalar):
            rule, of, then, least = reader.scalar(place, value, read_condition), None, None, ALERT_SAMPLES_MIN
        else:
            fields = reader.fields(place, value, ALERT_WORDS)
            rule = reader.value(fields, place, "when", read_condition, None)
            of = reader.value(fields, place, "of", lambda text: _agent(text, agents), None)
            then = reader.value(fields, place, "then", _then, None)
            least = reader.value(fields, place, "min", whole(1, MIN_MAX), ALERT_SAMPLES_MIN)
            if "when" not in fields:
                reader.add(line, f"{place}: missing key `when`", f"Write `when:` and {EXAMPLE}")
        if rule is None:
            continue
        if of not in (None, MESH) and rule.number in MESH_NUMBERS:
            what = f"{place}.of: {rule.number} is a number of the whole mesh, not of an agent"
            reader.add(reader.lines[f"{place}.of"], what, "Remove `of`, or write `of: mesh`")
            continue
        of = MESH if rule.number in MESH_NUMBERS else of
        found[name] = rule._replace(name=name, of=of or "", stops=then == STOP, samples_min=least)
    return found


def read_condition(text: str) -> AlertRule:
    """Read `error_rate > 20% for 1m`. Raises InvalidInput."""
    match = _CONDITION.fullmatch(text)
    if match is None:
        raise _invalid("this is not the condition of an alert", EXAMPLE, text, "")
    number, operator, bound, span = match.groups()
    unit = NUMBERS.get(number)
    if unit is None:
        raise _invalid("no number has this name", f"one of {', '.join(NUMBERS)}", number, did_you_mean(number, NUMBERS))
    length_ms = 60_000 if span is None else duration_ms(span)
    if not BASE_MS <= length_ms <= FOR_MS_MAX or length_ms % BASE_MS:
        raise _invalid("alerts cannot look at this time", "10s to 1h, in steps of 10s", str(span), "Write `for 1m`")
    return AlertRule("", number, operator == ">", _bound(bound, unit), length_ms, text=" ".join(text.split()))


def _bound(text: str, unit: str) -> float:
    if unit == MS:
        return duration_ms(text)
    if unit == SHARE:
        digits = text.removesuffix("%")
        if text == digits or not _DECIMAL.fullmatch(digits) or float(digits) > 100:
            raise _invalid("this is not a share", "0% to 100%", text, "Write it with a percent sign, like 20%")
        return float(digits) / 100
    if not _DECIMAL.fullmatch(text):
        raise _invalid("this is not a number", "a plain number, like 3 or 0.5", text, "")
    return float(text)


def _agent(text: str, agents: Collection[str]) -> str:
    if text != MESH and text not in agents:
        remedy = did_you_mean(text, agents, f"Known: {', '.join(agents)}")
        raise _invalid("no agent has this name", "an agent, or mesh", text, remedy)
    return text


def _then(text: str) -> str:
    if text != STOP:
        raise _invalid("an alert cannot do this", "stop", text, "Write `then: stop`, or remove the key")
    return text


def _invalid(what: str, expected: str, got: str, remedy: str) -> InvalidInput:
    return InvalidInput(what, code="bad_value", expected=expected, got=excerpt(got), remedy=remedy)
