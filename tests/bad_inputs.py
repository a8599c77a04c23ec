"""Every bad input and its answer, one table: test_bad_input.py tries each, docs/reference/bad-input.md shows it.

A row has the number of its kind of input in our list of bad inputs, and the entry by which it arrives. `given` is the
input: a record, a function that makes one from an open task, or the argument of a call. `code` is the reason code of
the answer, or "" where the input is accepted and does no harm, as `remark` says.
"""

from typing import Any, Final, NamedTuple

from mesh.core.protocol.codec import event_headers
from mesh.core.protocol.event import BATCH
from mesh.core.protocol.record import StoredRecord
from tests.bad_records import DEEP, OTHER_RUN, answer, asked, incoming, many, said, spoilt
from tests.builders import AT_MS, record

INGRESS: Final = "an ingress topic"
INBOX: Final = "mesh.inbox"
ANSWER: Final = "an answer or a request"
TASK: Final = "a task topic"
BOARD: Final = "the board"
FILE: Final = "topics.yaml"
SETTINGS: Final = "settings"
COMMIT: Final = "a commit's metadata"
CONSOLE: Final = "the console"
TOPICS: Final = "the topics at start"

ENTRIES: Final[dict[str, str]] = {
    INGRESS: "a dead letter with the bytes as they came; where its run id is known, also an answer on mesh.outcomes",
    INBOX: "a dead letter with the bytes as they came, or counted; no run is changed",
    ANSWER: "a refusal in the outcome of the run, and a dead letter; refused whole, never in part",
    TASK: "the task fails for good, with the field in its message, or a dead letter",
    BOARD: "raised to the caller",
    FILE: "all problems at once, each with its line; nothing starts",
    SETTINGS: "an error that names the key and where it came from; nothing starts",
    COMMIT: "the offset counts, the note does not: state is made from the records. A newer note is refused",
    CONSOLE: "shown as text, never obeyed",
    TOPICS: "all problems at once; no service starts, none hangs",
}
"""Entry → its answer."""


class Row(NamedTuple):
    """See the module."""

    number: str
    what: str
    entry: str
    given: Any
    code: str
    remark: str = ""


# ------------------------------------------------------------------------------------------------------------ the table

INGRESS_ROWS: Final = [
    Row("B01", "no value", INGRESS, incoming(None), "empty_value"),
    Row("B01", "an empty value", INGRESS, incoming(b""), "empty_value"),
    Row("B02", "no id", INGRESS, incoming(id=None), "bad_id"),
    Row("B02", "an empty id", INGRESS, incoming(id=""), "bad_id"),
    Row("B02", "an over-long id", INGRESS, incoming(id="x" * 1_025), "bad_id"),
    Row("B02", "an id of 10 MB", INGRESS, incoming(id="x" * 10**7), "bad_id"),
    Row("B02", "control characters in an id", INGRESS, incoming(id="a\x00b"), "bad_id"),
    Row("B02", "an id that is no text", INGRESS, incoming(id=b"\xff"), "bad_header"),
    Row("B02", "a path trick in a run id", INGRESS, incoming(correlationid="../../etc"), "bad_id"),
    Row("B02", "an empty run id", INGRESS, incoming(correlationid=""), "bad_id"),
    Row("B16", "a source of the mesh's own", INGRESS, incoming(source="/agents/check"), "forged_source"),
    Row("B16", "a source of another topic's", INGRESS, incoming(source="/topics/in.other"), "forged_source"),
    Row("B16", "the run of another request", INGRESS, incoming(correlationid="run-1"), "foreign_run"),
    Row("B03", "bytes that are no text", INGRESS, incoming(b"\x80\xff\x00"), "unparseable"),
    Row("B03", "UTF-16", INGRESS, incoming('{"id": "o-1"}'.encode("utf-16")), "unparseable"),
    Row("B03", "not JSON", INGRESS, incoming(b"order 7, please"), "unparseable"),
    Row("B03", "JSON that is cut", INGRESS, incoming(b'{"id": "o-'), "unparseable"),
    Row("B03", "bytes after the document", INGRESS, incoming(b'{"id": "o-1"}\n{"id": "o-2"}'), "unparseable"),
    Row("B04", "nested 499 deep", INGRESS, incoming(b"[" * 499 + b"]" * 499), "too_deep"),
    Row("B05", "a key twice in one object", INGRESS, incoming(b'{"depth":1,"depth":0}'), "duplicate_key"),
    Row("B06", "NaN", INGRESS, incoming(b'{"usd": NaN}'), "bad_number"),
    Row("B06", "Infinity", INGRESS, incoming(b'{"usd": -Infinity}'), "bad_number"),
    Row("B06", "a number beyond a double", INGRESS, incoming(b'{"usd": 1e999}'), "bad_number"),
    Row("B06", "an integer of 900 digits", INGRESS, incoming(b'{"n": ' + b"9" * 900 + b"}"), "bad_number"),
    Row("B07", "a lone surrogate", INGRESS, incoming(b'{"name": "\\ud800"}'), "bad_string"),
    Row("B07", "a byte order mark", INGRESS, incoming(b'\xef\xbb\xbf{"id": "o-1"}'), "unparseable"),
    Row("B07", "text that turns its direction", INGRESS, incoming(subject="\u202egpj.exe"), "bad_string"),
    Row("B08", "a value over the limit", INGRESS, incoming(b'"' + b"x" * 999 + b'"'), "too_large"),
    Row("B08", "a header of 100 KB", INGRESS, incoming(subject="x" * 100_000), "too_large"),
    Row(
        "B08",
        "10,000 headers of others",
        INGRESS,
        incoming()._replace(headers=[(f"x-{n}", b"y") for n in range(10_000)]),
        "",
        "taken; headers of others are not carried on",
    ),
    Row(
        "B09",
        "compressed bytes as a payload",
        INGRESS,
        incoming(b"\x1f\x8b\x08\x00" + b"\x00" * 500),
        "unparseable",
        "a payload is never decompressed; batches that Kafka's producers compressed are unpacked into at most 16 MiB",
    ),
    Row("B10", "an unknown type", INGRESS, incoming(type="axk"), "unknown_type"),
    Row("B10", "the type of a result", INGRESS, incoming(type="checked"), "unknown_type"),
    Row("B10", "a type that only leaves", INGRESS, incoming(type="shipped"), "unknown_type"),
    Row("B10", "the type of a timer", INGRESS, incoming(type="mesh.timer"), "unknown_type"),
    Row("B10", "an older CloudEvents", INGRESS, incoming(specversion="0.3"), "not_cloudevents"),
    Row("B10", "a newer CloudEvents", INGRESS, incoming(specversion="2.0"), "not_cloudevents"),
    Row("B11", "no source", INGRESS, incoming(source=None), "missing_header"),
    Row("B11", "an invalid time", INGRESS, incoming(time="yesterday"), "bad_time"),
    Row(
        "B17",
        "headers that claim a place in a run",
        INGRESS,
        incoming(meshkind="succeeded", meshagent="check", meshdepth="-3", meshtask="t", meshpath="x,y"),
        "",
        "a plain request: headers of the mesh are not read at the entry",
    ),
    Row(
        "B22",
        "a topic to reply to",
        INGRESS,
        incoming(replyto="__consumer_offsets", meshreplyto="mesh.inbox"),
        "",
        "an extension attribute like any other; topics.yaml alone says where a run publishes",
    ),
    Row("B27", "a deadline that is a number", INGRESS, incoming(expirytime="-1"), "bad_deadline"),
    Row(
        "B27",
        "a deadline with a year of five digits",
        INGRESS,
        incoming(expirytime="33658-09-27T01:46:40Z"),
        "bad_deadline",
    ),
    Row(
        "B32",
        "a record of the year 1970",
        INGRESS,
        incoming()._replace(timestamp=0),
        "",
        "taken: what counts is the time at which the inbox took the request",
    ),
    Row("B32", "a record of the year 2200", INGRESS, incoming()._replace(timestamp=7_258_118_400_000), "", "the same"),
    Row("B34", "a pickle", INGRESS, incoming(b"\x80\x04\x95\x01\x00N."), "unparseable", "never loaded"),
    Row("B36", "a terminal escape in the source", INGRESS, incoming(source="\x1b[2J"), "bad_string"),
]

INBOX_ROWS: Final = [
    Row("B01", "a record without a value", INBOX, lambda t: record(answer(t), 1, value=None), "empty_value"),
    Row("B02", "a request with an empty run id", INBOX, asked(run_id=""), "bad_id"),
    Row("B02", "a request with an empty id", INBOX, asked(id="", run_id="run-2"), "bad_id"),
    Row("B02", "a request with an over-long run id", INBOX, asked(run_id="x" * 129), "bad_id"),
    Row("B03", "plain JSON", INBOX, lambda t: record(answer(t), 1, headers=[]), "not_cloudevents"),
    Row(
        "B03",
        "bytes and nothing else",
        INBOX,
        lambda t: StoredRecord("mesh.inbox", 0, 1, AT_MS, None, b"\xff\x00", []),
        "not_cloudevents",
    ),
    Row("B08", "a request with a header of 100 KB", INBOX, asked(run_id="run-2", subject="x" * 100_000), "too_large"),
    Row("B10", "an unknown kind", INBOX, spoilt(ce_meshkind=b"promoted"), "unknown_kind"),
    Row("B10", "a task on the inbox", INBOX, lambda t: record(t, 1), "unknown_kind"),
    Row("B11", "a header missing", INBOX, spoilt(ce_type=None), "missing_header"),
    Row("B11", "a header that is no text", INBOX, spoilt(ce_source=b"\xff"), "bad_header"),
    Row(
        "B11",
        "a header without a value",
        INBOX,
        lambda t: record(answer(t), 1, headers=[*event_headers(answer(t)), ("ce_subject", None)]),
        "bad_header",
    ),
    Row(
        "B11",
        "a header twice",
        INBOX,
        lambda t: record(answer(t), 1, headers=[*event_headers(answer(t)), ("ce_meshdepth", b"0")]),
        "bad_header",
    ),
    Row("B11", "a depth that is no number", INBOX, spoilt(ce_meshdepth=b"deep"), "bad_header"),
    Row("B12", "the wrong key", INBOX, lambda t: record(answer(t), 1, key=b"run-2"), "key_mismatch"),
    Row("B12", "no key", INBOX, lambda t: record(answer(t), 1, key=None), "key_mismatch"),
    Row("B13", "the wrong partition for its key", INBOX, asked(run_id="run-7"), "misrouted"),
    Row("B14", "a result for an unknown task", INBOX, said(task_id="absent"), "unknown_task"),
    Row("B14", "a result for an unknown run", INBOX, said(run_id="run-2"), "unknown_run"),
    Row("B14", "a timer for nothing", INBOX, asked(kind="due", id="x", task_id="x", type="mesh.timer"), "late_timer"),
    Row("B15", "a result of an older attempt", INBOX, said(attempt=0), "late_result"),
    Row("B15", "a result of a later attempt", INBOX, said(attempt=9), "late_result"),
    Row("B16", "a result of another agent", INBOX, said(agent="ship"), "wrong_agent"),
    Row("B16", "a result of an agent that does not exist", INBOX, said(agent="eve"), "wrong_agent"),
    Row("B18", "a result copied to another open run", INBOX, said(run_id=OTHER_RUN, id="copied"), "unknown_task"),
    Row("B29", "a cancellation for an unknown run", INBOX, asked(kind="cancelled", run_id="run-2"), "unknown_run"),
    Row("B30", "a request again with another body", INBOX, asked(data=b"[]"), "idempotency_conflict"),
    Row("B31", "a request again with the same body", INBOX, asked(), "duplicate_request", "its run and outcome stand"),
]

ANSWER_ROWS: Final = [
    Row("B10", "a request of an unknown type", ANSWER, asked(id="r2", type="axk", run_id="run-2"), "unknown_type"),
    Row(
        "B11",
        "a batch as a request",
        ANSWER,
        asked(id="r2", run_id="run-2", content_type=BATCH, data=many(2)),
        "bad_batch",
    ),
    Row("B04", "a batch nested 100,000 deep", ANSWER, said(content_type=BATCH, data=b"[" * DEEP), "bad_batch"),
    Row("B11", "an invalid batch", ANSWER, said(content_type=BATCH, data=b'[{"type":'), "bad_batch"),
    Row("B23", "an answer of an undeclared type", ANSWER, said(type="shipped"), "undeclared_type"),
    Row("B23", "an answer for a target of its own choice", ANSWER, said(type="mesh.tasks.ship"), "undeclared_type"),
    Row("B24", "10,000 events in one answer", ANSWER, said(content_type=BATCH, data=many(10_000)), "fanout"),
    Row("B24", "events that are too much together", ANSWER, said(content_type=BATCH, data=many(3, 900)), "state"),
    Row("B08", "a payload over the limit", ANSWER, said(data=b'"' + b"x" * 1_000 + b'"'), "payload"),
    Row(
        "B25",
        "a call of itself with its input",
        ANSWER,
        lambda t: record(answer(t, type="ask", data=t.data), 1),
        "cycle",
    ),
    Row("B27", "a deadline in the past", ANSWER, asked(id="r2", run_id="run-2", expiry_ms=AT_MS - 1), "bad_deadline"),
]

TASK_ROWS: Final = [
    Row("B03", "a payload that is not JSON", TASK, b"order 7, please", "schema", "(document)"),
    Row("B03", "a payload that is no text", TASK, b'{"id": "\xff"}', "schema", "(document)"),
    Row("B04", "a payload nested 100,000 deep", TASK, b"[" * DEEP, "schema", "(document)"),
    Row("B11", "a field missing", TASK, b"{}", "schema", "id"),
    Row("B11", "a field of the wrong type", TASK, b'{"id": {"a": 1}}', "schema", "id"),
    Row("B11", "an element of the wrong type", TASK, b'{"id": "o", "lines": [1, "x"]}', "schema", "lines.1"),
    Row("B11", "another document", TASK, b"[]", "schema", "(document)"),
    Row("B34", "a class to import", TASK, b'{"id": "o", "__class__": "os.system"}', "", "data: nothing is imported"),
    Row("B01", "a task without a value", TASK, {"value": None}, "empty_value"),
    Row("B11", "a task that says no run", TASK, {"ce_correlationid": None}, "missing_header"),
    Row("B11", "a task with another deadline than a time", TASK, {"ce_expirytime": b"soon"}, "bad_header"),
    Row("B11", "a task whose path is no text", TASK, {"ce_meshpath": b"\xff"}, "bad_header"),
    Row("B10", "a task that is no CloudEvent", TASK, {"ce_specversion": None}, "not_cloudevents"),
]

BOARD_ROWS: Final = [
    Row("B33", "an empty key", BOARD, ("", b"1", "*"), "bad_key"),
    Row("B33", "a key with other characters", BOARD, ("risk;DEL *", b"1", "*"), "bad_key"),
    Row("B33", "a key of 257 characters", BOARD, ("k" * 257, b"1", "*"), "bad_key"),
    Row("B33", "a key that climbs", BOARD, ("../../etc/passwd", b"1", "*"), "", "a name like any other: no path"),
    Row("B33", "a value of 1 MB", BOARD, ("k", b'"' + b"x" * 10**6 + b'"', "*"), "too_large"),
    Row("B33", "a value that is no JSON", BOARD, ("k", b"\xff", "*"), "unparseable"),
    Row("B33", "text that looks like Lua", BOARD, ("k", b"\"]] redis.call('FLUSHALL') --\"", "*"), "", "kept as data"),
    Row("B33", "a version of another incarnation of the store", BOARD, ("k", b"1", "bcdefgh:1"), "stale_version"),
    Row("B33", "an invalid version", BOARD, ("k", b"1", "latest"), "bad_version"),
]

GOOD_FILE: Final = """
mesh: {name: desk}
topics: {asks: {ingress: ask}, ends: {egress: done}}
agents: {a: {run: "m:f", on: ask, emits: done}}
"""
"""A valid file. A row replaces one text in it by another, and names words of the reported problem."""

FILE_ROWS: Final = [
    Row("B04", "lists nested 10,000 deep", FILE, ("{name: desk}", "[" * 10_000, "nested"), "topology_invalid"),
    Row("B05", "a key twice", FILE, ("name: desk", "name: desk, name: b", "is a duplicate of"), "topology_invalid"),
    Row("B22", "a topic of Kafka's own", FILE, ("asks:", "__consumer_offsets:", "topic's name"), "topology_invalid"),
    Row("B22", "a topic of the mesh's own", FILE, ("asks:", "desk.inbox:", "mesh's own"), "topology_invalid"),
    Row("B22", "a topic that is a pattern", FILE, ("asks:", "'in.*':", "topic's name"), "topology_invalid"),
    Row("B25", "a loop without an end", FILE, ("emits: done", "emits: [done, ask]", "cycle"), "topology_invalid"),
    Row("B27", "a negative timeout", FILE, ("on: ask", "on: ask, timeout: -1s", "duration"), "topology_invalid"),
    Row(
        "B27",
        "a timeout of 10^12 s",
        FILE,
        ("on: ask", f"on: ask, timeout: {10**12}s", "too large"),
        "topology_invalid",
    ),
    Row("B34", "a tag that makes an object", FILE, ("{n", "!!python/object:os.system {n", "tag"), "topology_invalid"),
    Row("B42", "an unknown key", FILE, ("name: desk", "name: desk, nmae: a", "unknown key"), "topology_invalid"),
    Row("B42", "a negative size", FILE, ("desk", "desk, limits: {payload_max: -1}", "a size"), "topology_invalid"),
    Row("B03", "bytes that are no text", FILE, ("desk", b"\xff", "UTF-8"), "topology_invalid"),
    Row("B01", "nothing", FILE, (GOOD_FILE, "", "is empty"), "topology_invalid"),
]

"""Source of a setting, its name, its text, and words of the reported problem. The key of mesh.toml or the
name of the variable."""
SETTINGS_ROWS: Final = [
    Row("B42", "an unknown key in mesh.toml", SETTINGS, ("toml", "nope", "1", "unknown setting"), "config_invalid"),
    Row(
        "B42",
        "a variable MESH_… that is nearly a setting",
        SETTINGS,
        ("environ", "sesion_timeout_ms", "10000", "Did you mean MESH_SESSION_TIMEOUT_MS?"),
        "config_invalid",
    ),
    Row(
        "B42",
        "a variable MESH_… like no setting",
        SETTINGS,
        ("environ", "nope", "1", "MESH_NOPE"),
        "",
        "ignored, since other programs may have such variables; `mesh config show` names it",
    ),
    Row(
        "B42",
        "a negative timeout",
        SETTINGS,
        ("environ", "append_timeout_ms", "-1", "greater than 0"),
        "config_invalid",
    ),
    Row(
        "B42",
        "a session timeout below a second",
        SETTINGS,
        ("environ", "session_timeout_ms", "10", "greater than or equal to 1000"),
        "config_invalid",
    ),
    Row(
        "B42",
        "a size that is no number",
        SETTINGS,
        ("environ", "record_bytes_max", "lots", "a valid integer"),
        "config_invalid",
    ),
    Row(
        "B42",
        "a log of an unknown kind",
        SETTINGS,
        ("environ", "log", "carrier-pigeon:coop", "no log is known by 'carrier-pigeon'"),
        "config_invalid",
    ),
]

COMMIT_ROWS: Final = [
    Row("B38", "text of another program", COMMIT, "0AQB:lz4", "", "no note; a warning in the log of the process"),
    Row("B38", "JSON of another application", COMMIT, '{"leader":"kafka-2"}', "", "the same"),
    Row("B40", "a note of an older version", COMMIT, '{"v":1}', "", "the same"),
    Row(
        "B40",
        "a note of a newer version",
        COMMIT,
        '{"v":99,"rules":2,"topology":"x","offset":1,"checkpoint":[]}',
        "not_restorable",
    ),
]

CONSOLE_ROWS: Final = [
    Row("B36", "a terminal escape", CONSOLE, "\x1b[2J\x1b]0;owned\x07", "\\x1b[2J\\x1b]0;owned\\x07"),
    Row("B36", "one line of 1 MB", CONSOLE, "x" * 10**6, "(1,000,000 characters)"),
    Row("B36", "text that turns its direction", CONSOLE, "\u202egpj.exe", "\\u202egpj.exe"),
    Row("B36", "a second line", CONSOLE, "ok\nerror: all is lost", "ok\\nerror: all is lost"),
]

TOPICS_ROWS: Final = [
    Row("B41", "no topics at all", TOPICS, None, "topics_invalid"),
    Row("B41", "another number of partitions", TOPICS, {"mesh.inbox": 3}, "topics_invalid"),
]

ROWS: Final = [
    *(*INGRESS_ROWS, *INBOX_ROWS, *ANSWER_ROWS, *TASK_ROWS, *BOARD_ROWS),
    *(*FILE_ROWS, *SETTINGS_ROWS, *COMMIT_ROWS, *CONSOLE_ROWS, *TOPICS_ROWS),
]

ELSEWHERE: Final[dict[str, tuple[str, str, str]]] = {
    "B15": (
        "the same answer twice, or after the end",
        "counted (`unknown_task`, `late_result`)",
        "tests/core/run/test_decide.py",
    ),
    "B17": (
        "an agent that claims another depth or parent",
        "noted (`claimed_lineage`), not believed",
        "tests/test_bad_input.py",
    ),
    "B25": (
        "agents that call one another with changing input",
        "`visits`, `depth`, `tasks`",
        "tests/core/run/test_lineage.py",
    ),
    "B26": (
        "a usage that is negative, NaN, huge or text",
        "the reservation is charged",
        "tests/test_bad_input.py",
    ),
    "B29": (
        "a cancellation of a run that ended, or twice",
        "`already_terminal`; nothing changes",
        "tests/core/run/test_decide.py",
    ),
    "B39": (
        "another application in one of our groups",
        "a service does not start, and names it (`config_invalid`)",
        "tests/live/test_kafka_member.py",
    ),
    "B35": ("an answer whose payload asks for another goal, depth or budget", "it is data", "tests/test_bad_input.py"),
}
"""Number → input, answer, and the test that tries it, where it takes more than one record."""
