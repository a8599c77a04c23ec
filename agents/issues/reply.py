"""Reply: a first answer to an issue that was just opened, drafted for a person to send or to change.

It says only what triage found and never repeats the reporter's words, so that a report cannot inject text.
Security reports get no public discussion. Events other than a new issue, bots and moderated items get no reply.
"""

import re

from mesh import agent

from .events import IssueRouted, ReplyDrafted

ANSWERED = frozenset(
    {("issues", "opened"), ("issues", "reopened"), ("issues", "transferred"), ("discussion", "created")}
)

GREETINGS = {
    "de": "Danke für die Meldung{who}!",
    "en": "Thank you for the report{who}!",
    "es": "¡Gracias por el aviso{who}!",
    "fr": "Merci pour ce signalement{who} !",
    "it": "Grazie per la segnalazione{who}!",
    "ja": "ご報告ありがとうございます{who}。",
    "ko": "제보해 주셔서 감사합니다{who}.",
    "nl": "Bedankt voor de melding{who}!",
    "pl": "Dziękujemy za zgłoszenie{who}!",
    "pt": "Obrigado pelo aviso{who}!",
    "ru": "Спасибо за сообщение{who}!",
    "sv": "Tack för rapporten{who}!",
    "tr": "Bildiriminiz için teşekkürler{who}!",
    "uk": "Дякуємо за повідомлення{who}!",
    "zh": "感谢您的反馈{who}！",
}
KINDS = {
    "bug": "This looks like a bug in **{area}**; the {team} team has it in its {queue} queue.",
    "feature": "This looks like a wish for **{area}**; the {team} team will weigh it.",
    "question": "This looks like a question about **{area}**; somebody of the {team} team will answer.",
    "docs": "This looks like a matter of documentation; the {team} team will correct it. Pull requests are welcome.",
    "chore": "This looks like upkeep of **{area}**; the {team} team will take it.",
    "security": "This may concern security. Please put no details here: use “Report a vulnerability” in the Security"
    " tab. The {team} team was told.",
    "other": "The {team} team will look at it.",
}
QUESTIONS = {
    "steps": "- What exactly did you do before it happened? The shortest way to see it helps most.",
    "version": "- Which version is it, on which system?",
    "expected": "- What did you expect to happen instead?",
}
LOGIN = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,38})")


@agent
async def reply(issue: IssueRouted) -> ReplyDrafted | None:
    """Draft an answer, or None where none is due."""
    if (issue.event, issue.action) not in ANSWERED or issue.author_is_bot or issue.queue == "moderation":
        return None
    who = f", @{issue.author}" if LOGIN.fullmatch(issue.author) else ""
    language = issue.language if issue.language in GREETINGS else "en"
    area = "the project" if issue.area == "general" else issue.area
    lines = [
        GREETINGS[language].format(who=who),
        "",
        KINDS[issue.kind].format(area=area, team=issue.team, queue=issue.queue),
    ]
    if issue.missing and issue.kind == "bug":
        lines += ["", "To find the cause we still need to know:", *(QUESTIONS[part] for part in issue.missing)]
    return ReplyDrafted(item=issue.item, url=issue.url, language=language, text="\n".join(lines))
