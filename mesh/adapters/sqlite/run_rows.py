"""Entries of the index of runs ⇄ rows of its table, and queries as conditions of SQL."""

from collections.abc import Iterable, Sequence
from typing import Any, Final

import orjson

from mesh.core.history.run_entry import RunEntry
from mesh.core.history.run_query import RunQuery
from mesh.core.history.run_summary import Summary
from mesh.core.protocol.event import Usage

COLUMNS: Final = (
    "run TEXT NOT NULL UNIQUE, home INTEGER NOT NULL, outcomes_home INTEGER NOT NULL, places TEXT NOT NULL,"
    " type TEXT NOT NULL, subject TEXT NOT NULL, requests TEXT NOT NULL, opened_ms INTEGER NOT NULL,"
    " ended_ms INTEGER, ending TEXT NOT NULL, generation INTEGER NOT NULL, late TEXT NOT NULL,"
    " tasks INTEGER NOT NULL, usd_micros INTEGER NOT NULL, tokens INTEGER NOT NULL,"
    " agents TEXT NOT NULL, codes TEXT NOT NULL, facts TEXT NOT NULL"
)
NAMES: Final = tuple(column.split()[0] for column in COLUMNS.split(", "))


def conditions_of(query: RunQuery) -> tuple[list[str], list[Any]]:
    """Return the parts of a query that SQL decides alike, with their values. The caller tests all of it again."""
    listed = {"agent": ("instr(agents, ?)", query.agent), "code": ("instr(codes, ?)", query.code)}
    parts: list[tuple[str, Any]] = [(text, f",{value},") for text, value in listed.values() if value]
    parts += [("type = ?", query.type)] if query.type else []
    parts += [("subject GLOB ?", query.subject.replace("[", "[[]"))] if query.subject else []
    for text, value in (
        ("opened_ms >= ?", query.since_ms),
        ("opened_ms < ?", query.until_ms),
        ("(ended_ms IS NULL OR ended_ms - opened_ms > ?)", query.slower_than_ms),
        ("tasks >= ?", query.tasks_min),
        ("usd_micros >= ?", query.usd_micros_min),
    ):
        parts += [(text, value)] if value is not None else []
    return [text for text, _ in parts], [value for _, value in parts]


def row_of(entry: RunEntry) -> tuple[Any, ...]:
    run = entry.ended
    facts = () if run is None else (run.refusals, run.failures, run.starved, run.unrouted, run.overspent)
    return (
        entry.run_id,
        entry.home,
        entry.outcomes_home,
        orjson.dumps((entry.inbox, entry.outcomes)).decode(),
        entry.type or ("" if run is None else run.type),
        entry.subject or ("" if run is None else run.subject),
        orjson.dumps(entry.requests).decode(),
        entry.opened_ms if run is None else run.opened_ms,
        None if run is None else run.ended_ms,
        "" if run is None else run.state,
        entry.generation,
        entry.late,
        0 if run is None else run.tasks,
        0 if run is None else run.used.usd_micros,
        0 if run is None else run.used.tokens,
        _listed(sorted(entry.agents)),  # else their order would depend on the steps of the build
        _listed(() if run is None else run.codes),
        orjson.dumps(facts).decode() if any(facts) else "",
    )


def entry_of(row: Sequence[Any]) -> RunEntry:
    (run_id, home, outcomes_home, places, type, subject, requests, opened_ms, ended_ms, ending, generation, *rest) = row
    late, tasks, usd_micros, tokens, agents, codes, facts = rest
    inbox, outcomes = orjson.loads(places)
    ended = None
    known = _split(agents)
    if ending:
        refusals, failures, starved, unrouted, overspent = map(tuple, orjson.loads(facts)) if facts else ((),) * 5
        ended = Summary(
            run_id,
            type,
            subject,
            ending,
            opened_ms,
            ended_ms,
            tasks,
            refusals,
            failures,
            False,
            starved,
            unrouted,
            overspent,
            known,
            _split(codes),
            Usage(usd_micros, tokens),
        )
    return RunEntry(
        run_id,
        home,
        [(first, last) for first, last in inbox],
        outcomes_home,
        [(first, last) for first, last in outcomes],
        type,
        subject,
        tuple(orjson.loads(requests)),
        opened_ms,
        known,
        ended,
        generation,
        late,
    )


def _listed(names: Iterable[str]) -> str:
    """Write names so that each has a comma on both sides, by which SQL finds it."""
    text = ",".join(names)
    return f",{text}," if text else ""


def _split(text: str) -> tuple[str, ...]:
    return tuple(text.strip(",").split(",")) if text else ()
