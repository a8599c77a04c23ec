#!/usr/bin/env python3
"""Write the pages in docs/ that are made from the code. `--check` compares: exit 1 if they differ."""

import argparse
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import orjson
import reference_pages
from reference_pages import page, table

from mesh.core.board.changelog import BoardChange, BoardRestart, change_record, restart_record
from mesh.core.dead_letters.redrive_log import LEDGER_FIELDS, ledger_topic
from mesh.core.ingress.admission import REJECTED_TYPE
from mesh.core.ingress.request_formats import TEXT_CHARS_MAX
from mesh.core.metrics.window_records import WINDOW_FIELDS
from mesh.core.protocol.codec import event_headers
from mesh.core.protocol.event import ID_PATTERN, INBOX_KINDS, KINDS, STACK_BYTES_MAX, TASK, Event
from mesh.core.protocol.headers import HEADERS
from mesh.core.protocol.json_check import DEPTH_MAX
from mesh.core.protocol.packed_form import FAULT_ITEMS, ITEMS, PACKED, HeaderItem, pack
from mesh.core.protocol.record import NewRecord
from mesh.core.publishing.effect_records import DEAD_LETTER_HEADERS, OUTCOME_CUTS, OUTCOME_FIELDS, record_of
from mesh.core.publishing.replacement_records import HEADERS_KEPT_MAX, NAME_BYTES_MAX
from mesh.core.publishing.replacement_records import TEXT_CHARS_MAX as CUT_CHARS_MAX
from mesh.core.run import control
from mesh.core.run.effects import Finish
from mesh.core.run.lineage import Refusal
from mesh.core.run.state import ENDINGS, RUN_STATES, TASK_STATES, Result, Run
from mesh.core.state.checkpoint import CommitNote, Extent
from mesh.core.state.partition_state import ENDED_OFFSETS_MAX
from mesh.core.topology.model import Limits, Topology

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # the table of bad inputs lies beside the test that tries them
OUTCOMES = dict(OUTCOME_FIELDS)
FACTS = ("failures", "refused", "unrouted", "starved", "overspent")
MESH = Topology("order-desk", "0" * 16, Limits(), {}, {})
AT_MS = 1_795_176_000_123
CHANGE = BoardChange("orders/sold/sku-007", b"41", "5f0c8b0d4a1e:1207", "inventory/2aa51dac", "2aa51dac:1", AT_MS)


def protocol() -> str:
    """docs/reference/protocol.md"""
    return page(
        "protocol",
        topics=table(("topic", "key", "contents"), _topics()),
        note=_fenced("json", CommitNote(MESH.digest, 52_310, (Extent(118, 131, 14), Extent(140, 142, 3))).text()),
        change=_fenced("", _record_text(change_record(CHANGE, MESH))),
        restart=_fenced("", _record_text(restart_record(BoardRestart("5f0c8b0d4a1e", "c91b7e22d310", AT_MS), MESH))),
        headers=table(("header", "meaning"), _coded(HEADERS)),
        packed=PACKED,
        items=table(("item", "type", "absent", "meaning"), _items(ITEMS)),
        failure=table(("item", "type", "absent", "meaning"), _items(FAULT_ITEMS)),
        header=_fenced("", f"{PACKED}: {pack(_task_event()).decode()}"),
        kinds=table(("`ce_meshkind`", "meaning", "on the inbox"), _kinds()),
        task=_fenced("", _task()),
        id=ID_PATTERN.pattern,
        remembered=f"{ENDED_OFFSETS_MAX:,}",
        payload=f"{MESH.limits.payload_bytes_max:,}",
        depth=DEPTH_MAX,
        text=f"{TEXT_CHARS_MAX:,}",
        fields=table(("field", "meaning"), _coded(OUTCOME_FIELDS)),
        cuts=table(("field", "meaning"), _coded(OUTCOME_CUTS)),
        cut=CUT_CHARS_MAX,
        outcome=_fenced("json", _outcome()),
        rejected=REJECTED_TYPE,
        control=MESH.control,
        stops=" or ".join(control.STATES[control.AGENT]),
        breakers=" or ".join(control.STATES[control.BREAKER]),
        faults=" or ".join(control.STATES[control.FAULT]),
        switch=_fenced("", _switch()),
        kept=HEADERS_KEPT_MAX,
        name=NAME_BYTES_MAX,
        value=f"{STACK_BYTES_MAX:,}",
        dead=table(("header", "meaning"), _coded(DEAD_LETTER_HEADERS)),
        windows=MESH.windows,
        window=table(("field", "meaning"), _coded(WINDOW_FIELDS)),
        ledger=table(("field", "meaning"), _coded(LEDGER_FIELDS)),
    )


def states() -> str:
    """docs/reference/states.md"""
    return page(
        "states",
        run=_fenced("mermaid", _diagram(RUN_STATES, ENDINGS)),
        endings=table(("ending", "meaning"), ENDINGS.items()),
        facts=table(("fact", "meaning"), _coded((name, OUTCOMES[name]) for name in FACTS)),
        task=_fenced("mermaid", _diagram(TASK_STATES)),
    )


def bad_input() -> str:
    """docs/reference/bad-input.md"""
    from tests import bad_inputs as bad

    sections = []
    for entry, answer in bad.ENTRIES.items():
        rows = [row for row in bad.ROWS if row.entry == entry]
        own = entry != bad.CONSOLE
        shown = [(row.number, row.what, f"`{row.code}`" if row.code else row.remark) for row in rows]
        sections.append(f"## {entry[0].upper()}{entry[1:]}\n\n{answer[0].upper()}{answer[1:]}.\n")
        columns = ("", "input", "answer") if own else ("", "input")
        sections.append(table(columns, [line[: len(columns)] for line in shown]) + "\n")
    elsewhere = [(number, *shown[:2], f"[{shown[2]}](../../{shown[2]})") for number, shown in bad.ELSEWHERE.items()]
    return page(
        "bad-input",
        entries="\n".join(sections),
        elsewhere=table(("", "input", "answer", "test"), elsewhere),
    )


PAGES = {
    "docs/reference/protocol.md": protocol,
    "docs/reference/states.md": states,
    "docs/reference/bad-input.md": bad_input,
    **reference_pages.PAGES,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Return the exit code: 0 done, 1 the files differ from the code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if a page differs from the code")
    parser.add_argument("--root", type=Path, default=ROOT, help="where docs/ lies (default: this project)")
    given = parser.parse_args(arguments)
    stale = 0
    for place, make in PAGES.items():
        path: Path = given.root / place
        text = make()
        if path.is_file() and path.read_text("utf-8") == text:
            continue
        if given.check:
            stale += 1
            print(f"{place} differs from the code; run `make docs`", file=sys.stderr)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, "utf-8")
            print(f"wrote {place}")
    return 1 if stale else 0


def _coded(table: Iterable[tuple[str, str]]) -> Iterable[Sequence[str]]:
    return ((f"`{name}`", text) for name, text in table)


def _fenced(language: str, text: str) -> str:
    return f"```{language}\n{text}\n```\n"


def _record_text(record: NewRecord) -> str:
    lines = [f"{name}: {value.decode()}" for name, value in record.headers]
    return "\n".join([f"key: {(record.key or b'none').decode()}", *lines, "", (record.value or b"").decode()])


def _topics() -> Iterable[Sequence[str]]:
    yield f"`{MESH.inbox}`", "run id", "everything that happens to runs: the only input of the orchestrator"
    yield (
        f"`{MESH.tasks('<agent>')}`",
        "the agent's `key:` field (the run id where the payload lacks it); the task id where it has no `key:`",
        "tasks, one topic an agent",
    )
    yield f"`{MESH.outcomes}`", "run id", "outcomes of runs; requests that opened none"
    yield f"`{MESH.dead}`", "that of the record", "dead letters with their reasons"
    yield (
        f"`{MESH.control}`",
        "the switch, `agent:<agent>`",
        "stopped agents with author and reason, open breakers, and faults of `mesh break`; one partition, compacted",
    )
    yield (
        f"`{MESH.endings}`",
        "run id",
        "ids of tasks in work when their run ended, so that workers stop them; one partition, kept for an hour",
    )
    yield f"`{MESH.clock}`", "none", "one record for each process that asks for the log's time; nothing reads it"
    yield f"`{MESH.checkpoints}`", "the partition", "the state of a partition of the inbox; trimmed, see below"
    yield f"`{MESH.topologies}`", "the digest", "topologies that runs were opened under; one partition, compacted"
    yield (
        f"`{ledger_topic(MESH)}`",
        "`<dead letter>:r<n>`",
        "the ledger of redrives: planned, sent, dropped, by whom; one partition, compacted",
    )
    yield (
        f"`{MESH.windows}`",
        "`<scope>|<start>|<topic>:<partition>`",
        "numbers of windows of time, see Windows; one partition, compacted, kept for a week",
    )
    yield f"`{MESH.board}`", "that of the value", "changes of the board; one partition, trimmed, see below"
    yield "ingress topics of topics.yaml", "the sender's", "requests from upstream, in any form below"
    yield "egress topics of topics.yaml", "the `key:` field, else the run id", "events that leave the mesh"


def _kinds() -> Iterable[Sequence[str]]:
    return ((f"`{kind}`", meaning, "yes" if kind in INBOX_KINDS else "") for kind, meaning in KINDS.items())


def _items(items: Iterable[HeaderItem]) -> Iterable[Sequence[str]]:
    for number, item in enumerate(items, start=1):
        yield f"{number} {item.name}", item.type, f"`{item.absent}`" if item.absent else "", item.meaning


def _task_event() -> Event:
    return Event(
        "2aa51dacfd716219ab0f68bc591b1b04:1",
        "/mesh/order-desk",
        "order.placed",
        TASK,
        "17592f4319c2264b91673ff5",
        b'{"order_id": "o-1", "total": 12.5}',
        AT_MS,
        "o-1",
        "pricing",
        "2aa51dacfd716219ab0f68bc591b1b04",
        1,
        ("pricing",),
        subject="o-1",
        expiry_ms=AT_MS + 60_000,
    )


def _task() -> str:
    event = _task_event()
    lines = [f"{name}: {value.decode()}" for name, value in event_headers(event)]
    return "\n".join([*lines, "", event.data.decode()])


def _switch() -> str:
    stop = control.Switch("agent", "pricing", "stopped", "ann@desk", "it mails customers", AT_MS)
    record = control.control_record(stop, MESH, event_id="019a9f3c-7f43-7d1c-8c0e-5b2f4e6a9d10")
    return _record_text(record)


def _outcome() -> str:
    run = Run("17592f4319c2264b91673ff5", "order.placed", MESH.digest, AT_MS, AT_MS + 60_000, ending="partial")
    run.ended_ms, run.tasks, run.refused, run.usd_micros, run.tokens = AT_MS + 8, 3, 1, 1_200, 310
    run.requests = ("o-1", "5f0c2a9d41b7e683")
    run.results = (Result("x1", "order.priced", "pricing", b'{"total":12.5}'),)
    text = "visits: reviewer > writer > reviewer reaches 'reviewer' 4 times in this run, at most 3"
    run.refusals = (Refusal("visits", "reviewer", ("reviewer", "writer"), 3, 4, text),)
    value = record_of(Finish(run, "o-1", run.ended_ms), MESH).value or b""
    return orjson.dumps(orjson.loads(value), option=orjson.OPT_INDENT_2).decode()


def _diagram(table: Iterable[tuple[str, str, str]], endings: Iterable[str] = ()) -> str:
    """A Mermaid state diagram; a state that nothing leaves is an end, and so are `endings`, though a redrive may leave
    them."""
    rows = list(table)
    lines = ["stateDiagram-v2"]
    lines += [f"    {'[*]' if before == '(none)' else before} --> {after}: {event}" for before, event, after in rows]
    left = {before for before, _, _ in rows}
    ends = dict.fromkeys([*endings, *(after for _, _, after in rows if after not in left)])
    return "\n".join([*lines, *(f"    {end} --> [*]" for end in ends)])


if __name__ == "__main__":
    sys.exit(main())
