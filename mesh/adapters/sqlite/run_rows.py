"""Entries of the index of runs ⇄ rows of its table, and queries as conditions of SQL."""

from collections.abc import Iterable, Sequence
from typing import Any, Final

import orjson

from mesh.adapters.sqlite.run_words import RunWords
from mesh.core.history.run_entry import RunEntry
from mesh.core.history.run_query import RunQuery
from mesh.core.history.run_summary import Summary
from mesh.core.protocol.event import Usage

COLUMNS: Final = (
    "run TEXT NOT NULL UNIQUE, home INTEGER NOT NULL, outcomes_home INTEGER NOT NULL, places TEXT NOT NULL,"
    " type INTEGER NOT NULL, subject TEXT NOT NULL, requests TEXT NOT NULL, opened_ms INTEGER NOT NULL,"
    " took_ms INTEGER, ending INTEGER NOT NULL, generation INTEGER NOT NULL, late TEXT NOT NULL,"
    " tasks INTEGER NOT NULL, usd_micros INTEGER NOT NULL, tokens INTEGER NOT NULL,"
    " agents INTEGER NOT NULL, codes INTEGER NOT NULL, facts TEXT NOT NULL"
)
"""type, ending, agents and codes are numbers of words. No took_ms: the run has no outcome."""
NAMES: Final = tuple(column.split()[0] for column in COLUMNS.split(", "))
CHOOSING: Final = "opened_ms, ending, type, agents, codes, tasks, usd_micros, took_ms"
"""Columns of the index that answers queries without the table."""
ORDERS: Final = {
    "started": "opened_ms DESC",
    "ended": "opened_ms + took_ms DESC, opened_ms DESC",
    "took": "took_ms DESC, opened_ms DESC",
    "tasks": "tasks DESC, opened_ms DESC",
    "spent": "usd_micros DESC, opened_ms DESC",
}


def conditions_of(query: RunQuery, words: RunWords, source: str = "runs") -> tuple[list[str], list[Any]]:
    """Return the parts of a query that SQL decides alike, with their values. The caller tests all of it again."""
    parts: list[tuple[str, Any]] = []
    for column, value in (("agents", query.agent), ("codes", query.code)):
        if value:
            listed = f",{value},"
            parts.append(_any_of(column, words.numbers(lambda text, listed=listed: listed in text)))  # type: ignore[misc]
    if query.type:
        parts.append(_any_of("type", words.numbers(query.type.__eq__)))
    if query.subject:  # found in the index of subjects, which is smaller than the table
        glob = query.subject.replace("[", "[[]")
        parts.append((f"+number IN (SELECT number FROM {source} WHERE subject GLOB ?)", glob))
    for text, number in (
        ("opened_ms >= ?", query.since_ms),
        ("opened_ms < ?", query.until_ms),
        ("(took_ms IS NULL OR took_ms > ?)", query.slower_than_ms),
        ("tasks >= ?", query.tasks_min),
        ("usd_micros >= ?", query.usd_micros_min),
    ):
        parts += [(text, number)] if number is not None else []
    return [text for text, _ in parts], [value for _, value in parts]


def endings_condition(query: RunQuery, words: RunWords) -> tuple[str, Any]:
    """Return the condition that a run ended as a query wants."""
    return _any_of("ending", words.numbers(query.endings.__contains__))


def _any_of(column: str, numbers: Sequence[int]) -> tuple[str, Any]:
    return f"{column} IN (SELECT value FROM json_each(?))", orjson.dumps(numbers).decode()


def row_of(entry: RunEntry, words: RunWords) -> tuple[Any, ...]:
    """Return the row of an entry; new words are added."""
    run = entry.ended
    facts = () if run is None else (run.refusals, run.failures, run.starved, run.unrouted, run.overspent)
    subject = entry.subject or ("" if run is None else run.subject)
    return (
        entry.run_id,
        entry.home,
        entry.outcomes_home,
        orjson.dumps((entry.inbox, entry.outcomes)).decode(),
        words.number(entry.type or ("" if run is None else run.type)),
        subject,
        "" if entry.requests == (subject,) else orjson.dumps(entry.requests).decode(),
        entry.opened_ms if run is None else run.opened_ms,
        None if run is None else run.took_ms,
        words.number("" if run is None else run.state),
        entry.generation,
        entry.late,
        0 if run is None else run.tasks,
        0 if run is None else run.used.usd_micros,
        0 if run is None else run.used.tokens,
        words.number(_listed(sorted(entry.agents))),  # else their order would depend on the steps of the build
        words.number(_listed(() if run is None else run.codes)),
        orjson.dumps(facts).decode() if any(facts) else "",
    )


def entry_of(row: Sequence[Any], words: RunWords) -> RunEntry:
    """Return the entry in a row."""
    (run_id, home, outcomes_home, places, type_, subject, requests, opened_ms, took_ms, ending, generation, *rest) = row
    late, tasks, usd_micros, tokens, agents, codes, facts = rest
    inbox, outcomes = orjson.loads(places)
    ended = None
    type, known = words.text(type_), _split(words.text(agents))
    if ending:
        refusals, failures, starved, unrouted, overspent = map(tuple, orjson.loads(facts)) if facts else ((),) * 5
        ended = Summary(
            run_id,
            type,
            subject,
            words.text(ending),
            opened_ms,
            opened_ms + took_ms,
            tasks,
            refusals,
            failures,
            False,
            starved,
            unrouted,
            overspent,
            known,
            _split(words.text(codes)),
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
        tuple(orjson.loads(requests)) if requests else (subject,),
        opened_ms,
        known,
        ended,
        generation,
        late,
    )


def _listed(names: Iterable[str]) -> str:
    """Write names so that each has a comma on both sides, by which it is found."""
    text = ",".join(names)
    return f",{text}," if text else ""


def _split(text: str) -> tuple[str, ...]:
    return tuple(text.strip(",").split(",")) if text else ()
