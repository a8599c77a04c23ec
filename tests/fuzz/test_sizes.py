"""No input and no run stops a partition.

Every record of a topic, however large, is answered with records that the log accepts, and a valid request behind it
completes."""

from collections import deque
from dataclasses import replace
from typing import Any, Final

import orjson
from hypothesis import given
from hypothesis import strategies as st

from mesh.adapters.clock import SystemClock
from mesh.adapters.sqlite import SqliteLog
from mesh.core.ingress.admission import admit
from mesh.core.protocol.codec import Unreadable, event_headers, read_event
from mesh.core.protocol.event import NO_USAGE, TASK, Fault, Part, Usage
from mesh.core.protocol.record import RECORD_BYTES_MIN, NewRecord, StoredRecord, record_bytes
from mesh.core.publishing.effect_records import inbox_record, record_of
from mesh.core.publishing.replacement_records import replacements
from mesh.core.run.effects import Note, Schedule
from mesh.core.state.partition_state import Partition
from mesh.core.state.topology_registry import step
from mesh.core.task.result import failure_event, success_event
from mesh.core.topology.model import Limits
from mesh.services.intake import Intake
from mesh.services.worker.invocation import task_in
from tests.builders import AT_MS, event, topology
from tests.fuzz.material import fuzz, records

LIMITS: Final = Limits(tasks_max=40, fanout_max=64, payload_bytes_max=20_000, state_bytes_max=400_000)
MESH: Final = topology(
    LIMITS,
    check="ask | again -> checked, again",
    ship="checked & again -> shipped",
    leaves=["ask", "checked", "again"],
)
INGRESS: Final = "in.ask"
TOPICS: Final = (INGRESS, MESH.inbox, MESH.tasks("check"), MESH.tasks("ship"))
STEPS_MAX: Final = 400
sizes: Final = st.sampled_from([RECORD_BYTES_MIN * n // 8 for n in (1, 4, 7, 8, 9, 16, 40)])
pads: Final = st.sampled_from(["x", "ä", "\x00", '"'])


@st.composite
def large(draw: st.DrawFn, topic: str) -> StoredRecord:
    """A record with a few of its parts made large."""
    record = draw(records(topic=topic))
    for _ in range(draw(st.integers(0, 3))):
        text = draw(pads) * draw(sizes)
        part = draw(st.sampled_from(["key", "value", "name", "header", "attribute", "many"]))
        headers = list(record.headers)
        match part:
            case "key":
                record = record._replace(key=text.encode())
            case "value":
                record = record._replace(value=text.encode())
            case "name":
                headers.append((text, b"v"))
            case "header":
                headers.append(("h", text.encode()))
            case "many":
                headers += [(f"h{n}", b"v" * 40) for n in range(len(text) // 40)]
            case "attribute" if headers:
                at = draw(st.integers(0, len(headers) - 1))
                headers[at] = (headers[at][0], text.encode())
        record = record._replace(headers=headers)
    return record


@st.composite
def answers(draw: st.DrawFn) -> Any:
    """Behaviours of an agent: large results, many of them, large failures, events that it may not emit."""
    text = draw(pads) * draw(sizes)
    match draw(st.sampled_from(["one", "many", "fails", "undeclared", "loops"])):
        case "one":
            parts = [Part("checked", b'"%s"' % (b"x" * len(text)))]
        case "many":
            parts = [Part(draw(st.sampled_from(["checked", "again"])), b"1") for _ in range(draw(st.integers(2, 70)))]
        case "undeclared":
            parts = [Part(text, b"1")]
        case "loops":
            parts = [Part("again", b"%d" % draw(st.integers(0, 9)))]
        case _:
            fault = Fault("exception", text, draw(st.sampled_from(["E", text])), draw(st.booleans()), text[:9_000])
            return lambda task: failure_event(task, fault, NO_USAGE)
    return lambda task: success_event(task, parts, Usage(1, 1))


class Lived:
    """A mesh in memory whose log takes records of at most `RECORD_BYTES_MIN` bytes."""

    def __init__(self, act: Any) -> None:
        self.state = Partition(MESH, number=0, partitions=1)
        self.intake = Intake(SqliteLog("never-opened"), MESH, SystemClock())
        self.act = act
        self.offsets = dict.fromkeys([*TOPICS, MESH.outcomes, MESH.dead], 0)
        self.todo: deque[StoredRecord] = deque()
        self.written: list[NewRecord] = []

    def put(self, record: StoredRecord) -> None:
        """A record comes to lie on its topic."""
        self.todo.append(record._replace(offset=self.offsets[record.topic]))
        self.offsets[record.topic] += 1

    def append(self, record: NewRecord) -> None:
        """Append a record, or the first of its replacements that the log takes."""
        if record_bytes(record) > RECORD_BYTES_MIN:
            ladder = replacements(record, "too_large", "over", MESH, RECORD_BYTES_MIN)
            record = next(new for new in ladder if record_bytes(new) <= RECORD_BYTES_MIN)
        self.written.append(record)
        if record.topic in TOPICS:
            self.put(StoredRecord(record.topic, 0, 0, AT_MS, record.key, record.value, list(record.headers)))

    def go_on(self) -> None:
        """Read what lies there, until nothing is left or enough was done."""
        for _ in range(STEPS_MAX):
            if not self.todo:
                return
            record = self.todo.popleft()
            for new in self.answered(record):
                self.append(new)

    def answered(self, record: StoredRecord) -> list[NewRecord]:
        """Return the records that the reader of this topic appends."""
        if record.topic == INGRESS:
            return list(self.intake.answer(record, admit(record, MESH)))
        if record.topic == MESH.inbox:
            effects = step(self.state, record)
            return [record_of(effect, MESH) for effect in effects if not isinstance(effect, Note | Schedule)]
        task = task_in(record, record.topic.rpartition(".")[2], MESH)
        return [task if isinstance(task, NewRecord) else inbox_record(self.act(task), MESH)]


@fuzz
@given(st.lists(st.sampled_from(TOPICS).flatmap(large), max_size=3), answers(), st.booleans())
def test_whatever_lies_on_a_topic_the_mesh_appends_what_the_log_takes_and_goes_on(
    poison: list[StoredRecord], act: Any, direct: bool
) -> None:
    lived = Lived(act)
    for record in poison:
        lived.put(record)
    lived.go_on()
    lived.todo.clear()
    good = event(id="good", run_id="good-run", subject="s" * 900)
    if direct:
        stored = StoredRecord(MESH.inbox, 0, 0, AT_MS, good.run_id.encode(), good.data, event_headers(good))
    else:
        attributes = {"specversion": "1.0", "id": "good", "source": "/s", "type": "ask"}
        headers = [(f"ce_{name}", text.encode()) for name, text in attributes.items()]
        stored = StoredRecord(INGRESS, 0, 0, AT_MS, None, b"{}", headers)
    lived.act = lambda task: success_event(task, [Part("checked", b"1")], NO_USAGE)
    lived.put(stored)
    lived.go_on()
    assert lived.state.offset == lived.offsets[MESH.inbox] - len([r for r in lived.todo if r.topic == MESH.inbox])
    assert all(record_bytes(record) <= RECORD_BYTES_MIN for record in lived.written)
    bodies = [orjson.loads(new.value or b"") for new in lived.written if new.topic == MESH.outcomes]
    assert [body["ending"] for body in bodies if body.get("request", {}).get("ids") == ["good"]] == ["partial"]


@fuzz
@given(large(MESH.tasks("check")), answers(), st.sampled_from(["too_large", "unauthorized", "invalid"]))
def test_each_replacement_is_smaller_and_the_last_one_always_fits(record: StoredRecord, act: Any, code: str) -> None:
    task = read_event(record)
    news = [NewRecord(record.topic, record.key, record.value, record.headers)]
    if not isinstance(task, Unreadable):
        news.append(inbox_record(act(replace(task, kind=TASK)), MESH))
    for new in news:
        ladder = list(replacements(new, code, "no" * 9_000, MESH, 200_000))
        taken = [record_bytes(found) for found in ladder]
        assert taken == sorted(taken, reverse=True)
        assert taken[-1] <= RECORD_BYTES_MIN
