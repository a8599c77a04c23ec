"""W3C Trace Context (level 2): what of the trace that a request came with goes on. Pure and total.

A broken trace must not stop an order: what is not well formed is left out, and a new trace begins. `tracestate` counts
only beside a valid `traceparent` of the same carrier. Headers of the record come before attributes of the CloudEvent
(Distributed Tracing extension), since they name the last hop.
"""

import re
from collections.abc import Sequence
from typing import Final, NamedTuple

MEMBERS_MAX: Final = 32
STATE_CHARS_MAX: Final = 512
"""Of a tracestate that goes on. Of a longer one whole members are left out: the long ones first, then the last ones."""
MEMBER_CHARS_LONG: Final = 128
READ_CHARS_MAX: Final = 16_384
"""Of a tracestate that is read at all."""
VERSION: Final = "00"
_FLAGS_KNOWN: Final = 0x03
"""sampled, and random trace id. All others go on as zero."""

_PARENT: Final = re.compile(r"(?!ff)([0-9a-f]{2})-((?!0{32})[0-9a-f]{32})-((?!0{16})[0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_OURS: Final = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-0[0-3]")
"""A traceparent that goes on as it is: nearly all do."""
_MEMBER: Final = re.compile(
    r"([a-z0-9][a-z0-9_*/-]{0,240}@[a-z][a-z0-9_*/-]{0,13}|[a-z][a-z0-9_*/-]{0,255})"
    r"=([\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e])"
)


class Trace(NamedTuple):
    """Both headers as they go on; "" where there is none."""

    traceparent: str = ""
    tracestate: str = ""


NO_TRACE: Final = Trace()


def trace_of(parents: Sequence[str], states: Sequence[str]) -> Trace:
    """The trace in what one carrier says: every `traceparent` and every `tracestate` of it, in their order."""
    if len(parents) != 1:
        return NO_TRACE  # of several, none is known to be the right one
    parent = _traceparent(parents[0].strip(" \t"))
    return Trace(parent, _tracestate(states)) if parent else NO_TRACE


def _traceparent(text: str) -> str:
    """As version 00: of a later version, what it shares with that. "" where it is none."""
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
    """All lists as one, or "" where a member is not well formed, a key stands twice, or there are too many."""
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
