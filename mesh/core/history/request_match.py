"""Whether an outcome answers a request: several may go by one run, and not every one was heard. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from mesh.core.errors import NotAccepted
from mesh.core.reason_codes import REASONS
from mesh.core.run.state import Run


class NotAnswered(NamedTuple):
    """Why a request was not taken into the run whose outcome is there: a reason code and a sentence."""

    code: str
    message: str


def why_not_answered(outcome: Mapping[str, Any], event_id: str, fingerprint: str) -> NotAnswered | None:
    """Why the body of an outcome is no answer to a request, by its id and its body's fingerprint; None if it is one.

    Outcomes that do not tell what they heard are taken as answers.
    """
    request = outcome.get("request")
    if not isinstance(request, Mapping):
        return None
    ids, fingerprints = request.get("ids"), request.get("fingerprints")
    if not isinstance(ids, Sequence) or not isinstance(fingerprints, Sequence):
        return None
    if event_id in ids:
        at = ids.index(event_id)
        first = fingerprints[at] if at < len(fingerprints) else fingerprint
        if first == fingerprint:
            return None
        text = f"request {event_id!r} was heard before with another body ({first}, now {fingerprint}); the first stands"
        return NotAnswered("idempotency_conflict", text)
    if outcome.get("requests_omitted"):
        return None  # it may be one of those that the log had no room for
    if any(refusal.get("code") == "requests" for refusal in outcome.get("refusals", ())):
        return None  # the run had heard as many as it may, and says so itself
    ending = outcome.get("ending", "")
    return NotAnswered("already_terminal", f"the run had ended {ending} before request {event_id!r} came")


def not_accepted(run_id: str, code: str, message: str) -> NotAccepted:
    """The error for a request that is not part of the run it named."""
    known = REASONS.get(code)
    remedy = f"{known.remedy[0].upper()}{known.remedy[1:]}" if known else ""
    return NotAccepted(f"{code}: {message}", code=code, where=f"run {run_id}", remedy=remedy)


def outcome_so_far(run: Run) -> Mapping[str, Any]:
    """As much of an outcome as `unheard` needs, from the state of a run."""
    return {
        "request": {"ids": run.roots, "fingerprints": run.bodies},
        "ending": run.ending,
        "refusals": [refusal._asdict() for refusal in run.refusals],
    }
