"""Router: which team and queue an issue or comment goes to, and how sure that is. Not sure enough: a person decides."""

import re

from mesh import agent

from .events import IssueCompared, IssueRouted, IssueScreened, IssueTriaged, NeedsHuman, Severity, team_of

CONFIDENCE_MIN = 0.4
SPAM_SURE, SPAM_MAYBE = 0.8, 0.5
AREA_BONUS, LABEL_BONUS, COMMENT_BONUS = 0.1, 0.1, 0.2

QUEUES: dict[Severity, str] = {"critical": "urgent", "high": "urgent", "medium": "normal", "low": "backlog"}
BUG_REPORT_PARTS = {
    "steps": re.compile(
        r"\b(?:steps|reproduc\w+|repro|to reproduce|when (?:i|you|we)|schritte|wenn ich|étapes|pasos)\b|^\s*1[.)]",
        re.IGNORECASE | re.MULTILINE,
    ),
    "version": re.compile(r"\bv?\d+\.\d+(?:\.\d+)?\b|\bversion\b", re.IGNORECASE),
    "expected": re.compile(
        r"\b(?:expect\w*|should|instead|supposed|sollte|erwart\w+|devrait|debería)\b", re.IGNORECASE
    ),
}


@agent
async def route(issue: IssueTriaged, spam: IssueScreened, compared: IssueCompared) -> IssueRouted | NeedsHuman:
    """Join what triage, the spam check and the comparison say."""
    confidence, reasons = _confidence(issue)
    facts = {
        "item": issue.item,
        "repository": issue.repository,
        "event": issue.event,
        "action": issue.action,
        "title": issue.title,
        "url": issue.url,
        "day": issue.day,
        "kind": issue.kind,
        "area": issue.area,
        "severity": issue.severity,
    }
    team = "security" if issue.kind == "security" else team_of(issue.area)
    moderated = spam.score >= SPAM_SURE
    if SPAM_MAYBE <= spam.score < SPAM_SURE:
        reasons.append(f"may be spam ({spam.score}): {', '.join(spam.signals)}")
        return NeedsHuman(**facts, team="moderators", confidence=round(1 - spam.score, 2), reasons=reasons)
    if not moderated and confidence < CONFIDENCE_MIN:
        reasons.append(f"confidence {confidence} is below {CONFIDENCE_MIN}")
        return NeedsHuman(**facts, team=team, confidence=confidence, reasons=reasons)
    if moderated:
        team, confidence, reasons = "moderators", spam.score, [f"spam: {', '.join(spam.signals)}"]
    return IssueRouted(
        **facts,
        team=team,
        confidence=confidence,
        reasons=reasons,
        queue="moderation" if moderated else QUEUES[issue.severity],
        author=issue.author,
        author_is_bot=issue.author_is_bot,
        language=issue.language,
        code_language=issue.code_language,
        missing=[part for part, pattern in BUG_REPORT_PARTS.items() if not pattern.search(issue.body)]
        if issue.kind == "bug"
        else [],
        fingerprint=compared.fingerprint,
        lookalikes_key=compared.lookalikes_key,
    )


def _confidence(issue: IssueTriaged) -> tuple[float, list[str]]:
    """Triage's confidence, raised by what else is clear, with the reasons."""
    confidence = issue.kind_confidence
    reasons = [f"kind {issue.kind} at {issue.kind_confidence}"]
    if issue.area != "general":
        confidence += AREA_BONUS
        reasons.append(f"area {issue.area}")
    if issue.labels:
        confidence += LABEL_BONUS
        reasons.append("has labels")
    if issue.comment and issue.title:
        # A comment follows its issue, which has a team already.
        confidence += COMMENT_BONUS
        reasons.append("comment on a known item")
    return round(min(1.0, confidence), 2), reasons
