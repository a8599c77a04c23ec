"""`mesh topics read`: what it prints, in text, raw and as JSON."""

import asyncio
import signal
from pathlib import Path

import pytest

from mesh.adapters.ports import TopicSpec
from mesh.adapters.sqlite import SqliteLog
from mesh.core.protocol.cloudevents_json import STRUCTURED, StructuredEvent, unwrap
from mesh.core.protocol.record import NewRecord
from tests.cli.conftest import Cli, Terminal, plain


def ended(cli: Cli, name: str) -> str:
    """The id of a run that has ended, of this subject."""
    return str(cli("publish", "hello", f'{{"name":"{name}"}}', "--wait", "--json").rows[0]["run"])


def test_a_run_is_read_from_the_inbox_and_its_outcome(desk: Cli) -> None:
    run = ended(desk, "reader-1")
    done = desk("topics", "read", "inbox", "outcomes", "--run", "reader-1")
    assert [" ".join(line.split()[3:]) for line in plain(done.out).splitlines()] == [
        "requested hello run RUN reader-1",
        "succeeded greeter: greeted, greeting.kept run RUN",
        "succeeded keeper: nothing run RUN",
        "outcome completed run RUN reader-1",
    ]
    assert {line.split()[0] for line in done.out.splitlines()} == {"inbox", "outcomes"}
    rows = desk("topics", "read", "mesh.inbox", "--run", run[:14], "--json").rows
    assert [row["meshkind"] for row in rows] == ["requested", "succeeded", "succeeded"]
    assert {row["correlationid"] for row in rows} == {run}
    assert rows[0]["data"] == {"name": "reader-1"}


def test_each_json_line_is_a_cloud_event_with_its_place(desk: Cli) -> None:
    ended(desk, "reader-2")
    line = desk("topics", "read", "inbox", "--run", "reader-2", "--limit", "1", "--json").out
    assert isinstance(unwrap(line.encode(), STRUCTURED), StructuredEvent)
    row = desk("topics", "read", "inbox", "--run", "reader-2", "--limit", "1", "--json").rows[0]
    place = f"{row['partition']}:{row['offset']}"
    (same,) = desk("topics", "read", "inbox", "--from", place, "--limit", "1", "--json").rows
    assert same == row
    ends = f"{row['partition']}:{row['offset'] + 1}"
    assert desk("topics", "read", "inbox", "--from", place, "--to", ends, "--json").rows == [row]


@pytest.mark.parametrize(
    ("options", "kinds"),
    [
        (["--agent", "keeper"], ["succeeded"]),
        (["--type", "hello"], ["requested"]),
        (["--key", "*", "--where", 'name == "NAME" and kind == "requested"'], ["requested"]),
        (["--where", 'ce.kind == "succeeded" and depth > 1'], ["succeeded"]),
        (["--tail", "1"], ["succeeded"]),
        (["--since", "2000-01-01"], ["requested", "succeeded", "succeeded"]),
        (["--until", "@1"], []),
    ],
)
def test_records_are_chosen(desk: Cli, options: list[str], kinds: list[str], request: pytest.FixtureRequest) -> None:
    name = f"reader-{len(request.node.nodeid)}-{options[0][2:]}-{len(options[1])}"
    ended(desk, name)
    options = [text.replace("NAME", name) for text in options]
    rows = desk("topics", "read", "inbox", "--run", name, "--json", *options).rows
    assert [row["meshkind"] for row in rows] == kinds


def test_payloads_headers_and_raw_bytes(desk: Cli) -> None:
    ended(desk, "reader-4")
    chosen = ("topics", "read", "inbox", "--run", "reader-4", "--limit", "1")
    assert '\n    {\n      "name": "reader-4"\n    }\n' in desk(*chosen, "-v").out
    assert "\n    ce_type  hello\n" in desk(*chosen, "-vv").out
    raw = desk(*chosen, "--raw").out
    assert '\n  mesh-event  [1,"reader-4",' in raw
    assert '\n    {"name":"reader-4"}\n' in raw
    (row,) = desk(*chosen, "--raw", "--json").rows
    assert row["payload"] == '{"name":"reader-4"}'
    assert [header["name"] for header in row["headers"]] == ["mesh-event"]


def test_bytes_that_are_no_event_cannot_break_the_terminal(desk: Cli) -> None:
    done = desk("topics", "read", "topologies", "checkpoints", "control", "board")
    assert done.code == 0
    assert "\x1b" not in done.out
    assert desk("topics", "read", "topologies", "--json").rows[0]["unreadable"]["code"] == "not_cloudevents"
    assert "no event: not_cloudevents" in desk("topics", "read", "topologies", "-v").out


def test_a_line_fits_a_terminal_of_80_columns(desk: Cli) -> None:
    ended(desk, "a-reader-with-a-name-of-forty-characters")
    with Terminal(desk, "topics", "read", "inbox", "outcomes", "tasks.keeper", "topologies", columns=80) as shown:
        lines = plain(shown.end().out).splitlines()
    assert lines
    assert all(":" in line.split()[1] for line in lines)  # each is a record; none is the rest of a folded line


def test_new_records_are_followed(desk: Cli) -> None:
    ended(desk, "reader-5")
    command = ("topics", "read", "outcomes", "--follow", "--tail", "1", "--where", 'subject == "reader-5"', "--json")
    with desk.background(*command, "-v") as following:
        following.out_until("reader-5")
        following.err_until("waiting for records")
        ended(desk, "reader-5")
        ended(desk, "reader-6")
        following.signal(signal.SIGINT)
        assert following.end().code == 130
    desk("topics", "read", "outcomes", "--follow", "--tail", "1", "--limit", "1")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["inbx"], "the log has no topic 'inbx'. Did you mean 'inbox'?"),
        (["inbox", "--from", "2"], "--from: this is not a place in a topic; expected PARTITION:OFFSET"),
        (["inbox", "--from", "7:0"], "topic 'mesh.inbox' has no partition 7; expected a partition from 0 to 1"),
        (["inbox", "--since", "soon"], "--since: this is not a time; expected an age such as 10m"),
        (["inbox", "--since", "1h", "--until", "2h"], "--until is not after --since"),
        (["inbox", "--where", "a = 1"], "--where, column 3"),
        (["inbox", "--follow", "--until", "1h"], "--follow has no end"),
        (["inbox", "--run", "no-such-run"], "no run goes by 'no-such-run'"),
    ],
)
def test_mistakes_are_reported(desk: Cli, arguments: list[str], said: str) -> None:
    done = desk("topics", "read", *arguments)
    assert done.code in (1, 2, 3)
    assert said in done.err


SENT = (
    NewRecord("T", b"k-binary", b'{"name":"b","total":5}', [("ce_specversion", b"1.0"), ("ce_id", b"b-1"),
        ("ce_source", b"/shop"), ("ce_type", b"hello"), ("ce_subject", b"sub-1")], 0),
    NewRecord("T", b"k-json", b'{"specversion":"1.0","id":"s-1","source":"/shop","type":"hello","data":{"total":7}}',
        [("content-type", b"application/cloudevents+json")], 0),
    NewRecord("T", b"k-plain", b'{"name":"p","total":9}', [], 0),
    NewRecord("T", b"k-bytes", b"\xff\x00", [], 0),
)  # fmt: skip
"""What other senders may have written: a CloudEvent in both modes, plain JSON, and bytes."""


@pytest.fixture
def sent(project: Cli) -> Cli:
    """A mesh that does not run. Other senders wrote to its ingress topic and to a foreign one."""

    async def write(path: Path) -> None:
        log = SqliteLog(path)
        await log.start()
        await log.create_topics([TopicSpec("hellos", 1), TopicSpec("theirs", 1)])
        for topic in ("hellos", "theirs"):
            await log.append([record._replace(topic=topic) for record in SENT])
        await log.close()

    folder = project.folder / ".mesh"
    folder.mkdir(mode=0o700)
    asyncio.run(write(folder / "mesh.db"))
    return project


@pytest.mark.parametrize(
    ("topic", "options", "keys"),
    [
        ("theirs", ["--type", "hello"], ["k-binary", "k-json"]),
        ("hellos", ["--type", "hello"], ["k-binary", "k-json", "k-plain"]),
        ("theirs", ["--key", "k-b*"], ["k-binary", "k-bytes"]),
        ("theirs", ["--where", "total > 6"], ["k-json", "k-plain"]),
        ("theirs", ["--where", 'source == "/shop" and kind == "foreign"'], ["k-binary", "k-json"]),
        ("hellos", ["--tail", "1", "--type", "hello"], ["k-plain"]),
    ],
)
def test_events_of_other_senders_are_chosen(sent: Cli, topic: str, options: list[str], keys: list[str]) -> None:
    assert [row["key"] for row in sent("topics", "read", topic, "--json", *options).rows] == keys


def test_events_of_other_senders_are_shown_as_cloud_events(sent: Cli) -> None:
    lines = [" ".join(line.split()[2:]) for line in sent("topics", "read", "theirs").out.splitlines()]
    assert lines == [
        "foreign hello sub-1, b-1, /shop",
        "foreign hello s-1, /shop",
        'k-plain {"name":"p","total":9}',
        "k-bytes \\xff\\x00",
    ]
    shown = sent("topics", "read", "theirs", "-v").out
    assert "id  s-1  source  /shop" in shown
    assert "no event: not_cloudevents: the record has no CloudEvents headers" in shown
    assert '"total": 9' in shown
    rows = sent("topics", "read", "hellos", "--json").rows
    assert len({row["correlationid"] for row in rows[:3]}) == 3
    assert [row["data"]["total"] for row in rows[:3]] == [5, 7, 9]
    assert rows[3]["unreadable"]["code"] == "unparseable"
