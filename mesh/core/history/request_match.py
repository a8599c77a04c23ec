"""Decide whether an outcome answers a request: a run may have several, and not every one was consumed. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from mesh.core.errors import NotAccepted
from mesh.core.reason_codes import REASONS
from mesh.core.run.state import Run


class NotAnswered(NamedTuple):
    """Reason why a run did not consume a request: a reason code and a sentence."""

    code: str
    message: str


def why_not_answered(outcome: Mapping[str, Any], event_id: str, fingerprint: str) -> NotAnswered | None:
    """Return why the body of an outcome does not answer a request, or None if it does.

    `event_id` and `fingerprint` (of its body) identify the request. Outcomes that do not list their requests are taken
    as answers.
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
        text = f"request {event_id!r} came before with another body ({first}, now {fingerprint}); the first counts"
        return NotAnswered("idempotency_conflict", text)
    if outcome.get("requests_omitted"):
        return None  # it may be one of those that were cut from the outcome
    if any(refusal.get("code") == "requests" for refusal in outcome.get("refusals", ())):
        return None  # the run had reached its limit of requests, and its outcome says so
    ending = outcome.get("ending", "")
    return NotAnswered("already_terminal", f"the run had ended {ending} before request {event_id!r} came")


def not_accepted(run_id: str, code: str, message: str) -> NotAccepted:
    """Return the error for a request that is not part of the run it named."""
    known = REASONS.get(code)
    remedy = f"{known.remedy[0].upper()}{known.remedy[1:]}" if known else ""
    return NotAccepted(f"{code}: {message}", code=code, where=f"run {run_id}", remedy=remedy)


def outcome_so_far(run: Run) -> Mapping[str, Any]:
    """Return the fields of an outcome that `why_not_answered` needs, from the state of a run."""
    return {
        "request": {"ids": run.roots, "fingerprints": run.bodies},
        "ending": run.ending,
        "refusals": [refusal._asdict() for refusal in run.refusals],
    }
