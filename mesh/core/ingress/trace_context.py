"""W3C Trace Context (level 2): the part of a request's trace that is passed on. No function here raises.

An invalid trace does not reject a request: malformed headers are dropped, and a new trace begins. `tracestate` counts
only beside a valid `traceparent` of the same carrier. Headers of the record take precedence over attributes of the
CloudEvent (Distributed Tracing extension), since they name the last hop.
"""

import re
from collections.abc import Sequence
from typing import Final, NamedTuple

MEMBERS_MAX: Final = 32
STATE_CHARS_MAX: Final = 512
"""Limit for a tracestate that is passed on. A longer one loses whole members: long ones first, then the last ones."""
MEMBER_CHARS_LONG: Final = 128
READ_CHARS_MAX: Final = 16_384
"""Limit for a tracestate that is read at all."""
VERSION: Final = "00"
_FLAGS_KNOWN: Final = 0x03
"""Flags that are passed on: sampled, and random trace id. All other flags become zero."""

_PARENT: Final = re.compile(r"(?!ff)([0-9a-f]{2})-((?!0{32})[0-9a-f]{32})-((?!0{16})[0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_OURS: Final = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-0[0-3]")
"""A traceparent that is passed on unchanged, as nearly all are."""
_MEMBER: Final = re.compile(
    r"([a-z0-9][a-z0-9_*/-]{0,240}@[a-z][a-z0-9_*/-]{0,13}|[a-z][a-z0-9_*/-]{0,255})"
    r"=([\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e])"
)


class Trace(NamedTuple):
    """Both headers as they are passed on; "" where there is none."""

    traceparent: str = ""
    tracestate: str = ""


NO_TRACE: Final = Trace()


def trace_of(parents: Sequence[str], states: Sequence[str]) -> Trace:
    """Return the trace of one carrier from all its `traceparent` and `tracestate` values, in order."""
    if len(parents) != 1:
        return NO_TRACE  # several contradict each other
    parent = _traceparent(parents[0].strip(" \t"))
    return Trace(parent, _tracestate(states)) if parent else NO_TRACE


def _traceparent(text: str) -> str:
    """Return a traceparent as version 00, which later versions extend; "" for an invalid one."""
    if _OURS.fullmatch(text):
        return text
    match = _PARENT.fullmatch(text)
    if match is None:
        return ""
    version, trace_id, parent_id, flags, more = match.groups()
    if more and version == VERSION:
        return ""
    return f"{VERSION}-{trace_id}-{parent_id}-{int(flags, 16) & _FLAGS_KNOWN:02x}"


def _tracestate(states: Sequence[str]) -> str:
    """Join all lists into one; "" where a member is malformed, a key appears twice, or there are too many."""
    if not states:
        return ""
    text = ",".join(states)
    if len(text) > READ_CHARS_MAX:
        return ""
    members: dict[str, str] = {}
    for part in text.split(","):
        member = part.strip(" \t")
        if not member:
            continue  # empty members are allowed
        match = _MEMBER.fullmatch(member)
        if match is None or match[1] in members:
            return ""
        members[match[1]] = member
    if len(members) > MEMBERS_MAX:
        return ""
    kept = list(members.values())
    long = [member for member in kept if len(member) > MEMBER_CHARS_LONG]
    leaving = [*(member for member in kept if len(member) <= MEMBER_CHARS_LONG), *long]
    while len(",".join(kept)) > STATE_CHARS_MAX:
        kept.remove(leaving.pop())
    return ",".join(kept)
