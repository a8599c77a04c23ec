"""Material of fuzz tests. CI runs a small number of examples; more with `MESH_FUZZ=20000 pytest tests/fuzz`.

Raw bytes are rejected early, so most of it is valid material with a few changes.
"""

import os
from collections.abc import Sequence
from typing import Any, Final

import orjson
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from mesh.core.protocol.cloudevents_json import STRUCTURED
from mesh.core.protocol.codec import event_headers
from mesh.core.protocol.event import BATCH, KINDS, Event, Fault
from mesh.core.protocol.headers import HEADERS
from mesh.core.protocol.record import StoredRecord
from tests.bad_records import answer
from tests.builders import AT_MS, event

EXAMPLES: Final = int(os.environ.get("MESH_FUZZ", "60"))
fuzz: Final = settings(
    max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)

TASK: Final = event("task", id="t1:1", agent="check", task_id="t1", depth=1, path=("check",), cause_id="r1")
FAULT: Final = Fault("exception", "it broke", "builtins.ValueError", True, "Traceback …")
GOOD: Final[Sequence[Event]] = (
    event(),
    event("cancelled", id="c1"),
    event("due", id="run-1:deadline", type="mesh.timer"),
    TASK,
    answer(TASK),
    answer(TASK, content_type=BATCH, data=b'[{"specversion":"1.0","id":"a","source":"/a","type":"checked","data":1}]'),
    answer(TASK, kind="failed", type="ask", fault=FAULT),
    event("outcome", id="o", type="mesh.run.completed"),
)

json_values: Final = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=12,
)


def document(value: Any) -> bytes:
    """A JSON value as bytes; what JSON cannot say as null."""
    try:
        return orjson.dumps(value)
    except TypeError:
        return b"null"


bodies: Final = st.one_of(
    st.none(),
    st.binary(max_size=40),
    json_values.map(document),
    st.builds(lambda depth, mark: mark * depth, st.integers(1, 5_000), st.sampled_from([b"[", b'{"a":', b"[{}"])),
)
names: Final = st.one_of(
    st.sampled_from([name for name, _ in HEADERS]),
    st.sampled_from(["CE_ID", "ce_", "content-type", "mesh-dlq-id", "__dlq.errors.topic", ""]),
    st.text(max_size=12),
)
texts: Final = st.one_of(
    st.none(),
    st.binary(max_size=24),
    st.sampled_from([kind.encode() for kind in KINDS]),
    st.sampled_from([b"1.0", b"", b"-1", b"9" * 5_000, BATCH.encode(), STRUCTURED.encode(), b"NaN", b"\x00", b"run-1"]),
    st.text(max_size=24).map(lambda text: text.encode("utf-8", "surrogatepass")),
)
headers: Final = st.lists(st.tuples(names, texts), max_size=6)


@st.composite
def records(draw: st.DrawFn, topic: str = "mesh.inbox", offset: int = 0) -> StoredRecord:
    """A good record with some of it changed, or one made of nothing but noise."""
    good = draw(st.sampled_from(GOOD) | st.none())
    base = [] if good is None else list(event_headers(good))
    for name, value in draw(headers):
        at = next((n for n, (known, _) in enumerate(base) if known == name), None)
        if at is None or draw(st.integers(0, 5)) == 0:
            base.append((name, value))  # type: ignore[arg-type]  # Kafka has headers without a value
        else:
            base[at] = (name, value)  # type: ignore[assignment]
    for _ in range(draw(st.integers(0, 2))):
        if base:
            base.pop(draw(st.integers(0, len(base) - 1)))
    value = draw(bodies) if good is None or draw(st.booleans()) else good.data
    key = draw(st.none() | st.binary(max_size=8) | st.sampled_from([b"run-1", b"run-2", b"*"]))
    at_ms = draw(st.sampled_from([AT_MS, 0, -1, 2**62]))
    return StoredRecord(topic, 0, offset, at_ms, key, value, tuple(base))


PIECES: Final = ("", "\t", "- ", "{", "]", ": ", "*a", "&a ", "!!python/none ")


@st.composite
def mutations(draw: st.DrawFn, text: str) -> str:
    """A text with a few pieces taken out, doubled, moved or replaced."""
    for _ in range(draw(st.integers(1, 4))):
        low = draw(st.integers(0, len(text)))
        high = min(len(text), low + draw(st.integers(0, 30)))
        piece = draw(st.sampled_from([text[low:high] * 2, *PIECES]) | st.text(max_size=6))
        text = text[:low] + piece + text[high:]
    return text
