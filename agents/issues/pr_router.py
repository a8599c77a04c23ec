"""PR router: which team reviews a pull request, in which queue. Suspicious ones and unclear ones go to a person."""

from mesh import agent

from .events import NeedsHuman, PullReviewed, PullRouted, PullScreened, PullTriaged, team_of

CONFIDENCE_MIN = 0.4
SPAM_SURE, SPAM_MAYBE = 0.8, 0.5
SIZE_BONUS, AREA_BONUS, LABEL_BONUS = 0.2, 0.1, 0.1


@agent
async def route(pull: PullTriaged, spam: PullScreened, reviewed: PullReviewed) -> PullRouted | NeedsHuman:
    """Join what triage, the spam check and the reviewer say."""
    confidence, reasons = _confidence(pull, reviewed)
    facts = {
        "item": pull.item,
        "repository": pull.repository,
        "event": pull.event,
        "action": pull.action,
        "title": pull.title,
        "url": pull.url,
        "day": pull.day,
        "kind": pull.kind,
        "area": pull.area,
        "severity": pull.severity,
    }
    moderated = spam.score >= SPAM_SURE
    if SPAM_MAYBE <= spam.score < SPAM_SURE:
        reasons.append(f"may be spam ({spam.score}): {', '.join(spam.signals)}")
        return NeedsHuman(**facts, team="moderators", confidence=round(1 - spam.score, 2), reasons=reasons)
    team = "security" if pull.kind == "security" else team_of(pull.area)
    if not moderated and confidence < CONFIDENCE_MIN:
        reasons.append(f"confidence {confidence} is below {CONFIDENCE_MIN}")
        return NeedsHuman(**facts, team=team, confidence=confidence, reasons=reasons)
    if moderated:
        team, confidence, reasons = "moderators", spam.score, [f"spam: {', '.join(spam.signals)}"]
    return PullRouted(
        **facts,
        team=team,
        confidence=confidence,
        reasons=reasons,
        queue="moderation" if moderated else _queue(pull),
        size=reviewed.size,
        risk=reviewed.risk,
        tests=reviewed.tests,
        approvals_needed=reviewed.approvals_needed,
        remarks=reviewed.remarks,
    )


def _queue(pull: PullTriaged) -> str:
    """Closed is done; a draft, or one whose author has to change something, waits; the others want a review."""
    if pull.merged or not pull.open:
        return "done"
    return "waiting" if pull.draft or pull.review_state == "changes_requested" else "review"


def _confidence(pull: PullTriaged, reviewed: PullReviewed) -> tuple[float, list[str]]:
    """Triage's confidence, raised by what else is clear, with the reasons."""
    confidence = pull.kind_confidence
    reasons = [f"kind {pull.kind} at {pull.kind_confidence}", f"{reviewed.risk} risk"]
    if reviewed.size != "unknown":
        confidence += SIZE_BONUS
        reasons.append(f"size {reviewed.size}")
    if pull.area != "general":
        confidence += AREA_BONUS
        reasons.append(f"area {pull.area}")
    if pull.labels:
        confidence += LABEL_BONUS
        reasons.append("has labels")
    return round(min(1.0, confidence), 2), reasons
