"""Read limits given as `WORD=VALUE`, with the words and units of `mesh.limits` in topics.yaml."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any, Final

from mesh.core.errors import InvalidInput
from mesh.core.suggest import nearest
from mesh.core.topology.digest import digest_of
from mesh.core.topology.loader import at_least
from mesh.core.topology.model import Limits, Topology
from mesh.core.topology.units import duration_ms, size_bytes, usd_micros, whole

NONE: Final = "none"
"""The value that removes a budget."""
_COUNT: Final = whole(1, 1_000_000)
LIMIT_FIELDS: Final[dict[str, tuple[str, Callable[[str], Any]]]] = {
    "depth_max": ("depth_max", whole(1, 1_000)),
    "tasks_max": ("tasks_max", _COUNT),
    "fanout_max": ("fanout_max", _COUNT),
    "visits_max": ("visits_max", _COUNT),
    "cascade_max": ("cascade_max", _COUNT),
    "deadline": ("deadline_ms", at_least(1, duration_ms)),
    "pause": ("pause_ms", at_least(1, duration_ms)),
    "payload_max": ("payload_bytes_max", at_least(1, size_bytes)),
    "state_max": ("state_bytes_max", at_least(1, size_bytes)),
    "budget.usd": ("usd_micros_max", usd_micros),
    "budget.tokens": ("tokens_max", whole(0, 10**12)),
}
"""Word of topics.yaml → field of `Limits`, and the reader of its values."""


def read_limits(option: str, texts: Iterable[str]) -> dict[str, Any]:
    """Read limits as fields of `Limits`. Raises InvalidInput that names the option and the word."""
    found: dict[str, Any] = {}
    for text in texts:
        word, sign, value = text.partition("=")
        if word not in LIMIT_FIELDS or not sign:
            near = nearest(word, LIMIT_FIELDS)
            raise InvalidInput(
                f"{text[:64]!r} sets no limit",
                code="bad_value",
                where=option,
                expected=f"WORD=VALUE, the word one of {', '.join(LIMIT_FIELDS)}",
                remedy=f"Did you mean {near}?" if near and near != word else "",
            )
        field, reader = LIMIT_FIELDS[word]
        if value == NONE and word.startswith("budget."):
            found[field] = None
            continue
        try:
            found[field] = reader(value)
        except InvalidInput as error:
            raise InvalidInput(
                error.what,
                code=error.code,
                where=f"{option} {word}",
                expected=error.expected,
                got=error.got,
                remedy=error.remedy,
            ) from error
    return found


def with_limits(topology: Topology, fields: dict[str, Any]) -> Topology:
    """Return a topology with other limits, under the digest that it has then."""
    limits: Limits = replace(topology.limits, **fields)
    if limits == topology.limits:
        return topology
    other = replace(topology, limits=limits)
    return replace(other, digest=digest_of(other))
