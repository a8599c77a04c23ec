"""One run is one trace, whatever processes it crosses: real processes on one embedded log, and a collector."""

from pathlib import Path

from mesh.adapters.tracing import span_names as names
from mesh.app.wiring import open_log
from mesh.core.protocol.record import NewRecord
from mesh.settings import Settings
from tests.cli.conftest import Cli
from tests.collector import ReceivedSpan, span_collector, span_tree

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
    print(span_tree(spans))
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
