"""Compare an answer or an outcome with the recorded one. Pure.

    ignored = Ignored(["quoted_at", "order.priced.lines.id"])
    answer_differences(recorded, new, ignored)     # events of kind `succeeded` or `failed`
    outcome_differences(recorded, new, ignored)    # bodies of outcomes

Times, ids of records and spending are left out: they differ each time. Keys of objects have no order, lists do.
Values that are masked in the recording are not compared.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice, zip_longest
from typing import Any, Final

import orjson

from mesh.core.expression.field_path import parse_path
from mesh.core.protocol.event import FAILED, SUCCEEDED, Event, Fault, Part
from mesh.core.replay.masked_values import stands_for
from mesh.core.verification.record_diff import MISSING, SHOWN_MAX, Difference, value_differences

ERROR: Final = "error"
"""Name under which the fields of a failure are ignored: `error.message`."""
OUTCOME: Final = "outcome"
"""Name under which the fields of an outcome are ignored: `outcome.tasks`."""
Entry = Mapping[str, Any]
"""A result in the body of an outcome."""
MEASURED: Final = frozenset({"timed_out", "crash_loop"})
"""Codes of failures whose message counts or measures, so that it differs each time."""
SENTENCES: Final = ("starved", "overspent")
LISTS: Final[dict[str, tuple[str, ...]]] = {
    "refusals": ("code", "agent", "path", "limit"),
    "failures": ("agent", "attempts", "code", "message", "path"),
    "unrouted": ("type", "agent", "message", "times"),
}
"""Lists of an outcome → the fields of their entries that a repetition has again."""


class Ignored:
    """Fields that may differ: paths into payloads, alone or after the type of an event.

    A path without an index stands for every item of a list: `lines.id` covers `lines[0].id` and `lines[1].id`.
    """

    def __init__(self, paths: Iterable[str] = ()) -> None:
        """Raises ConditionInvalid for a text that is no path."""
        self._paths = [parse_path(path) for path in paths]

    def covers(self, type: str, steps: Sequence[str | int]) -> bool:
        """Whether the field to which these steps lead, in a payload of this type, may differ."""
        for path in self._paths:
            bound = path.bind([type])
            wanted = bound.segments
            if (wanted or bound.type is not None) and _leads_to(wanted, steps):
                return True
        return False


NOTHING: Final = Ignored()
SAME: Final = "same"
SLOWER: Final = "slower"
DIFFERENT: Final = "different"
BROKEN: Final = "failed"
VERDICTS: Final[dict[str, str]] = {
    SAME: "the same answer",
    SLOWER: "the same answer, but it took much longer",
    DIFFERENT: "another answer",
    BROKEN: "a failure where the recorded answer is a success",
}
SLOWER_FACTOR: Final = 3
SLOWER_MS_MIN: Final = 100
"""An answer is slower if it took both that many times and that many milliseconds longer than the recorded one."""


def verdict_of(
    recorded: Event, new: Event, differences: Sequence[Difference], recorded_ms: float, new_ms: float
) -> str:
    """Return the verdict on a new answer: one of `VERDICTS`. `…_ms`: how long each took."""
    if not differences:
        slower = new_ms > SLOWER_FACTOR * recorded_ms and new_ms - recorded_ms > SLOWER_MS_MIN
        return SLOWER if slower else SAME
    return BROKEN if new.kind == FAILED != recorded.kind else DIFFERENT


def answer_differences(
    recorded: Event, new: Event, ignored: Ignored = NOTHING, masked: set[str] | None = None
) -> list[Difference]:
    """Return the differences of two answers to one task; at most `SHOWN_MAX`. `masked` receives the places that are not
    compared, since the recorded value is masked."""
    if recorded.data == new.data and recorded.kind == new.kind == SUCCEEDED and recorded.type == new.type:
        return []  # most
    return list(islice(_answer(recorded, new, ignored, set() if masked is None else masked), SHOWN_MAX))


def outcome_differences(
    recorded: Mapping[str, Any], new: Mapping[str, Any], ignored: Ignored = NOTHING
) -> list[Difference]:
    """Return the differences of two outcomes of one run; at most `SHOWN_MAX`."""
    return list(islice(_outcome(recorded, new, ignored), SHOWN_MAX))


def same_input(recorded: Event, new: Event) -> bool:
    """Whether two tasks ask for the same: equal types and payloads."""
    return not any(_payloads(_parts(recorded), _parts(new), NOTHING, set()))


def answer_text(answer: Event) -> str:
    """Describe an answer in a few words: its types, or its failure."""
    if answer.fault is not None or answer.kind == FAILED:
        return f"failed: {(answer.fault or _UNKNOWN).code}"
    counted = Counter(part.type for part in _parts(answer))
    return ", ".join(f"{count} x {type}" if count > 1 else type for type, count in counted.items()) or "nothing"


_UNKNOWN: Final = Fault("unknown", "the failure came without a reason")


def _answer(recorded: Event, new: Event, ignored: Ignored, masked: set[str]) -> Iterator[Difference]:
    if recorded.kind != new.kind:
        yield Difference("answer", _kind_text(recorded), _kind_text(new))
    elif recorded.kind == FAILED:
        yield from value_differences(ERROR, _error(recorded), _error(new), _covering(ignored, ERROR), _noting(masked))
    else:
        yield from _payloads(_parts(recorded), _parts(new), ignored, masked)


def _error(answer: Event) -> dict[str, str]:
    fault = answer.fault or _UNKNOWN
    message = "" if fault.code in MEASURED else fault.message
    return {"code": fault.code, "class": fault.cls, "message": message}


def _kind_text(answer: Event) -> str:
    fault = answer.fault
    return answer_text(answer) if fault is None else f"{answer_text(answer)}: {fault.message}"


def _parts(event: Event) -> Sequence[Part]:
    try:
        return event.parts()
    except ValueError:
        return (Part(event.type, event.data),)


def _payloads(
    recorded: Sequence[Part], new: Sequence[Part], ignored: Ignored, masked: set[str]
) -> Iterator[Difference]:
    types = Counter(part.type for part in (*recorded, *new))
    number: Counter[str] = Counter()
    for one, other in zip_longest(recorded, new):
        known = one or other
        number[known.type] += 1
        place = known.type if types[known.type] <= 2 else f"{known.type} #{number[known.type]}"
        if one is None or other is None or one.type != other.type:
            yield Difference("event", *(MISSING if part is None else part.type for part in (one, other)))
        elif one.data != other.data:
            covered = _covering(ignored, one.type)
            yield from value_differences(place, _parsed(one.data), _parsed(other.data), covered, _noting(masked))


def _covering(ignored: Ignored, type: str) -> Any:
    return lambda steps: ignored.covers(type, steps)


def _noting(masked: set[str]) -> Callable[[str, Any, Any], bool]:
    """Return a test for values that are masked in the recording; it adds their places."""

    def is_masked(place: str, recorded: Any, new: Any) -> bool:
        if not stands_for(recorded, new):
            return False
        masked.add(place)
        return True

    return is_masked


def _parsed(data: bytes) -> Any:
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        return data.decode("utf-8", "backslashreplace")


def _outcome(recorded: Mapping[str, Any], new: Mapping[str, Any], ignored: Ignored) -> Iterator[Difference]:
    sides = _comparable(recorded), _comparable(new)
    yield from value_differences(OUTCOME, *sides, _covering(ignored, OUTCOME), _noting(set()))
    for one, other in _results(recorded.get("results", ()), new.get("results", ())):
        if one is None or other is None:
            yield Difference("result", *(MISSING if side is None else _result_text(side) for side in (one, other)))
            continue
        type = str(one.get("type"))
        yield from value_differences(type, _data(one), _data(other), _covering(ignored, type), _noting(set()))


def _results(recorded: Sequence[Entry], new: Sequence[Entry]) -> Iterator[tuple[Entry | None, Entry | None]]:
    """Yield the results that belong together: of one type and agent, those with equal ids first."""
    left: dict[tuple[str, str], list[Entry]] = {}
    for entry in sorted(new, key=_id):
        left.setdefault(_maker(entry), []).append(entry)
    known = {_id(entry) for entry in new}
    for entry in sorted(recorded, key=lambda entry: (_id(entry) not in known, _id(entry))):
        others = left.get(_maker(entry), [])
        twin = next((n for n, other in enumerate(others) if _id(other) == _id(entry)), 0)
        yield entry, others.pop(twin) if others else None
    for others in left.values():
        yield from ((None, other) for other in others)


def _id(entry: Entry) -> str:
    return str(entry.get("id"))


def _maker(entry: Entry) -> tuple[str, str]:
    return str(entry.get("type")), str(entry.get("agent"))


def _result_text(entry: Mapping[str, Any]) -> str:
    return f"{entry.get('type')} of {entry.get('agent')}"


def _data(entry: Mapping[str, Any]) -> Any:
    return entry.get("data", entry.get("text"))


def _comparable(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a repetition of a run must have again, without its results. Lists are sorted: tasks end in any
    order."""
    kept: dict[str, Any] = {"ending": body.get("ending"), "tasks": body.get("tasks")}
    kept |= {name: sorted(body.get(name, ())) for name in SENTENCES}
    for name, fields in LISTS.items():
        entries = [{field: entry.get(field) for field in fields} for entry in body.get(name, ())]
        kept[name] = sorted(entries, key=lambda entry: orjson.dumps(entry, option=orjson.OPT_SORT_KEYS))
    return kept


def _leads_to(wanted: Sequence[str | int], steps: Sequence[str | int]) -> bool:
    """Whether a path names the field to which steps lead. Indexes that the path leaves out fit any."""
    at = 0
    for step in steps:
        if at < len(wanted) and wanted[at] == step:
            at += 1
        elif not isinstance(step, int):
            return False
    return at == len(wanted)
