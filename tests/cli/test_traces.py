"""One run is one trace, whatever processes it crosses: real processes on one embedded log, and a collector."""

import json
from pathlib import Path
from typing import Any

import pytest

from mesh.adapters.tracing import span_names as names
from mesh.adapters.tracing.intake_spans import IntakeSpans
from mesh.app.wiring import open_log
from mesh.core.ingress.admission import admit
from mesh.core.protocol.event import Event
from mesh.core.protocol.record import NewRecord, StoredRecord
from mesh.core.topology.loader import load
from mesh.settings import Settings
from tests.adapters.tracing.kit import Traced, ids_of
from tests.cli.conftest import Background, Cli
from tests.collector import ReceivedSpan, span_collector

UPSTREAM = "0af7651916cd43dd8448eb211c80319c"
TRACEPARENT = f"00-{UPSTREAM}-b7ad6b7169203331-01"
AGENTS = """
from pathlib import Path
from mesh import Context, Payload, agent

PRICES = Path(__file__).with_name("prices")


class Asked(Payload, type="ask"):
    n: int = 0


class Priced(Payload, type="priced"):
    n: int


class Answered(Payload, type="answer"):
    n: int


@agent
async def price(given: Asked, ctx: Context) -> Priced:
    if ctx.attempt == 1 and not PRICES.exists():
        raise ConnectionError("no prices at the first attempt")
    return Priced(n=given.n)


@agent
async def ship(given: Priced) -> Answered:
    if not PRICES.exists():
        raise ValueError("nothing is shipped without prices")
    return Answered(n=given.n)
"""
TOPOLOGY = """
mesh: {name: traced, limits: {deadline: 60s}}
topics:
  asks: {ingress: ask}
  answers: {egress: answer}
agents:
  price: {run: "pricing:price", on: ask, emits: priced, timeout: 5s, retry: {attempts: 2, first: 10ms}}
  ship: {run: "pricing:ship", on: priced, emits: answer, timeout: 5s, retry: {attempts: 1}}
"""


def traced_project(cli: Cli) -> Cli:
    (cli.folder / "pricing.py").write_text(AGENTS)
    (cli.folder / "topics.yaml").write_text(TOPOLOGY)
    return cli


async def send(folder: Path, headers: list[tuple[str, bytes]]) -> None:
    """Write a record to the ingress topic, as an upstream system does."""
    log = open_log(Settings(log=f"sqlite:{folder}/.mesh/mesh.db", topology=str(folder / "topics.yaml")), client="up")
    await log.start()
    await log.append([NewRecord("asks", b"k", b'{"n": 1}', tuple(headers))])
    await log.close()


def named(spans: list[ReceivedSpan], name: str) -> list[ReceivedSpan]:
    return sorted((span for span in spans if span.name == name), key=lambda span: span.began_ns)


async def test_a_run_in_one_process_is_one_trace(cli: Cli) -> None:
    project = traced_project(cli)
    (cli.folder / "prices").touch()
    with span_collector() as collected, project.up(env={**collected.environ, "MESH_TRACE_DECISIONS": "1"}):
        await send(cli.folder, [("traceparent", TRACEPARENT.encode())])
        spans = collected.until(lambda spans: len(named(spans, "decide traced.inbox")) == 3)
    assert {span.trace_id for span in spans} == {UPSTREAM}
    (root,) = named(spans, "process asks")
    assert root.parent_id == "b7ad6b7169203331"
    by_id = {span.span_id: span for span in spans}
    assert len(by_id) == len(spans)
    (price,), (ship,) = named(spans, "process traced.tasks.price"), named(spans, "process traced.tasks.ship")
    assert (by_id[price.parent_id], by_id[ship.parent_id]) == (root, price)
    (invoked,) = named(spans, "invoke_agent price")
    assert by_id[invoked.parent_id] == price
    assert {by_id[span.parent_id].name for span in named(spans, "decide traced.inbox")} == {
        "process asks",
        "process traced.tasks.price",
        "process traced.tasks.ship",
    }
    assert price.attributes[names.CONVERSATION_ID] == root.attributes[names.CONVERSATION_ID]


async def test_a_run_over_three_processes_with_a_retry_and_a_redrive_is_one_trace(cli: Cli) -> None:
    project = traced_project(cli)
    with span_collector() as collected:
        environ = collected.environ
        with (
            project.up("intake", env=environ),
            project.up("orchestrator", env=environ) as orchestrator,
            project.up("worker", env=environ) as worker,
        ):
            await send(cli.folder, [("traceparent", TRACEPARENT.encode()), ("tracestate", b"vendor=1")])
            collected.until(lambda spans: bool(named(spans, "send traced.dead")))
            lines = [logged(worker, "an attempt failed"), logged(orchestrator, "a dead letter was written")]
            (cli.folder / "prices").touch()
            sent = project("dead", "redrive", "--yes", "--wait")
            assert sent.code == 0, sent
            collected.until(lambda spans: len(named(spans, "send traced.inbox")) == 4)
    spans = collected.spans
    assert {span.trace_id for span in spans} == {UPSTREAM}
    assert {span.service for span in spans} == {"mesh-intake", "mesh-orchestrator", "mesh-worker"}
    by_id = {span.span_id: span for span in spans}
    assert len(by_id) == len(spans)
    (request,), (letter,) = named(spans, "process asks"), named(spans, "send traced.dead")
    first, second = named(spans, "process traced.tasks.price")
    failing, redriven = named(spans, "process traced.tasks.ship")
    assert request.parent_id == TRACEPARENT[36:52]
    assert [by_id[span.parent_id] for span in (first, second, failing)] == [request, request, second]
    assert (first.is_error, second.is_error, failing.is_error, redriven.is_error) == (True, False, True, False)
    assert second.links == ((UPSTREAM, first.span_id, {names.LINK: names.PREVIOUS_ATTEMPT}),)
    assert redriven.links == ((UPSTREAM, letter.span_id, {names.LINK: names.DEAD_LETTER}),)
    assert by_id[redriven.parent_id] == request
    assert by_id[letter.parent_id] == failing
    for span in spans:
        check_attributes(span)
    run_id = request.attributes[names.CONVERSATION_ID]
    ids = [(line["trace"], line["run"], line["agent"]) for line in lines]
    assert ids == [(UPSTREAM, run_id, "price"), (UPSTREAM, run_id, "ship")]
    assert [line["task"] for line in lines] == [span.attributes[names.TASK_ID] for span in (first, failing)]


def logged(process: Background, sentence: str) -> dict[str, Any]:
    """Return the first log line with this sentence."""
    found = [line for line in process.err_until(sentence).splitlines() if sentence in line]
    line: dict[str, Any] = json.loads(found[0])
    return line


def check_attributes(span: ReceivedSpan) -> None:
    """Compare the attributes of a span with the table, name by name."""
    operation = span.attributes.get(names.OPERATION_NAME, names.INVOKE_AGENT)
    of_task = names.TASK_ID in span.attributes
    about = {name: where for name, where, _ in names.ATTRIBUTES}
    allowed = {name for name, where in about.items() if where == "all" or operation in where.split(", ")}
    allowed |= {name for name, where in about.items() if of_task and "process of tasks" in where}
    assert set(span.attributes) <= allowed, span
    optional = {names.ERROR_TYPE, names.KEPT, names.ENDING, names.COST_USD, names.TOKENS, names.KAFKA_OFFSET}
    optional |= {names.OFFSET, names.SERVER_ADDRESS, names.SERVER_PORT}
    needed = {
        names.PROCESS: {names.SYSTEM, names.OPERATION_TYPE, names.DESTINATION, names.PARTITION, names.GROUP},
        names.SEND: {names.SYSTEM, names.OPERATION_TYPE, names.DESTINATION, names.MESSAGE_ID, names.CONVERSATION_ID},
        names.DECIDE: {names.SYSTEM, names.OPERATION_TYPE, names.DESTINATION, names.PARTITION, names.GROUP},
        names.INVOKE_AGENT: {names.GENAI_OPERATION, names.GENAI_AGENT, names.GENAI_CONVERSATION},
    }[operation]
    assert needed <= set(span.attributes) - optional, span
    assert (names.ERROR_TYPE in span.attributes) == span.is_error, span
    kinds = {names.PROCESS: 5, names.SEND: 4, names.DECIDE: 5, names.INVOKE_AGENT: 1}
    assert span.kind == kinds[operation]


BAD = "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01"
LONG = f"b={'x' * 250}"
MEMBERS = [f"k{n}=v" for n in range(33)]


@pytest.mark.parametrize(
    ("headers", "continues", "state"),
    [
        ([("traceparent", TRACEPARENT)], True, ""),
        ([("traceparent", TRACEPARENT), ("tracestate", "a=1"), ("tracestate", "b=2")], True, "a=1,b=2"),
        ([("traceparent", "cc" + TRACEPARENT[2:] + "-more")], True, ""),
        ([("traceparent", BAD), ("tracestate", "a=1")], False, ""),
        ([("traceparent", TRACEPARENT + "-more")], False, ""),
        ([("traceparent", TRACEPARENT), ("traceparent", TRACEPARENT)], False, ""),
        ([("tracestate", "a=1")], False, ""),
        ([("traceparent", TRACEPARENT), ("tracestate", ",".join(MEMBERS[:32]))], True, ",".join(MEMBERS[:32])),
        ([("traceparent", TRACEPARENT), ("tracestate", ",".join(MEMBERS))], True, ""),
        ([("traceparent", TRACEPARENT), ("tracestate", f"a=1,{LONG},c={'x' * 255}")], True, f"a=1,{LONG}"),
        ([("traceparent", TRACEPARENT), ("tracestate", "a=1,a=2")], True, ""),
    ],
    ids=["valid", "states", "later", "zero", "long", "two", "none", "32", "33", "512", "twice"],
)
async def test_the_context_of_upstream_is_continued_where_it_is_valid(
    headers: list[tuple[str, str]], continues: bool, state: str
) -> None:
    traced, topology = Traced(), load(TOPOLOGY)
    record = StoredRecord("asks", 0, 7, 1_000, b"k", b'{"n": 1}', tuple((n, text.encode()) for n, text in headers))
    request = admit(record, topology)
    assert isinstance(request, Event)
    IntakeSpans(traced.factory, "g").processed(record, request, 1)
    trace_id, span_id, parent = ids_of(traced.one)
    assert (trace_id == UPSTREAM, parent) == (continues, "b7ad6b7169203331" if continues else "")
    assert (request.traceparent, request.tracestate) == (f"00-{trace_id}-{span_id}-01", state)
