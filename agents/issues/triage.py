"""Triage: what kind of thing an issue, comment, discussion or pull request is, how bad, about what, in which language.

It uses rules, not a model: each rule is one line below, easy to change. A label or a conventional prefix
(`fix(parser): …`) gives a kind 4 points, each of its words in the title 2, and each in the text 1 (at most 3).
The confidence is the share of the kind in all scores, with 1 added for the doubt.
"""

import re
from collections import Counter
from collections.abc import Mapping
from typing import Any, get_args

from mesh import agent

from .events import (
    NAME_CHARS_MAX,
    TEXT_CHARS_MAX,
    TITLE_CHARS_MAX,
    IssueTriaged,
    Kind,
    PullTriaged,
    Severity,
    Webhook,
)

LABELS_MAX = 20
PATHS_MAX = 50
LABEL_SCORE, TITLE_SCORE, BODY_SCORE_MAX = 4, 2, 3


def _words(latin: str, other: str = "") -> re.Pattern[str]:
    """Whole words of scripts with spaces between words, and parts of texts in the others."""
    return re.compile(rf"\b(?:{latin})\b" + (f"|{other}" if other else ""), re.IGNORECASE)


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


KIND_WORDS: Mapping[Kind, re.Pattern[str]] = {
    "security": _words(
        r"security|vulnerab\w+|cve-\d+-\d+|exploit\w*|xss|csrf|rce|injection|privilege escalation|sicherheitsl\w+",
        "уязвимост|漏洞|脆弱性",
    ),
    "bug": _words(
        r"bugs?|errors?|crash\w*|broken|breaks?|fail(?:s|ed|ing|ures?)?|exceptions?|traceback|stack ?trace|regression"
        r"|incorrect(?:ly)?|wrong|unexpected|(?:does|do|is|did)(?:n'?t| not) work\w*|not working|freezes?|hangs?"
        r"|segfault|panics?|leaks?|steps to reproduce|expected behaviou?r|fehler|funktioniert nicht|kaputt"
        r"|abst[uü]rz\w+|erreur|plante|ne (?:fonctionne|marche) (?:pas|plus)|fallo|no funciona|erros?|n[aã]o funciona"
        r"|errore|non funziona|werkt niet|b[lł][aą]d|nie dzia[lł]a|hata|ошибка|не работает",
        "错误|崩溃|报错|エラー|バグ|動かない|오류|버그",
    ),
    "feature": _words(
        r"features?|feat|enhancement|support for|add support|would be (?:nice|great|useful)|please (?:add|support)"
        r"|propos\w+|suggest\w*|request|allow|ability to|wunsch|w[aä]re (?:gut|sch[oö]n)|ajouter|a[nñ]adir|adicionar",
        "希望|建议|要望|追加|추가",
    ),
    "question": _words(
        r"questions?|how (?:do|to|can|should)|is (?:it|there)|can (?:i|we|you)|why|what is|help|wie kann|frage|warum"
        r"|comment faire|pourquoi|c[oó]mo|por qu[eé]|como fazer|come posso|как|почему",
        "如何|怎么|请问|どうやって|質問|어떻게|[?？]",
    ),
    "docs": _words(
        r"docs?|documentation|readme|typos?|spell\w*|misspell\w*|tutorial|docstrings?|changelog|example|dokumentation"
        r"|tippfehler|faute|documentaci[oó]n|документация",
        "文档|ドキュメント",
    ),
    "chore": _words(
        r"chore|bump\w*|upgrade|update|dependenc\w+|deps|refactor\w*|clean ?up|rename|ci|build|workflow|lint\w*"
        r"|release|deprecat\w+|remove|migrate"
    ),
}
KIND_LABELS: Mapping[Kind, re.Pattern[str]] = {
    "security": re.compile(r"security|vulnerab|cve", re.IGNORECASE),
    "bug": re.compile(r"bug|defect|regression|crash", re.IGNORECASE),
    "feature": re.compile(r"feature|enhancement|proposal|idea", re.IGNORECASE),
    "question": re.compile(r"question|support|help wanted|q&a", re.IGNORECASE),
    "docs": re.compile(r"doc", re.IGNORECASE),
    "chore": re.compile(r"chore|dependenc|maintenance|refactor|internal|cleanup", re.IGNORECASE),
}
PREFIX = re.compile(r"\s*([a-z]+)(?:\(([\w./ -]{1,40})\))?!?:", re.IGNORECASE)
PREFIX_KINDS: Mapping[str, Kind] = {
    **dict.fromkeys(("fix", "bug", "bugfix", "hotfix", "revert"), "bug"),
    **dict.fromkeys(("feat", "feature", "enhancement", "perf"), "feature"),
    **dict.fromkeys(("question", "help"), "question"),
    **dict.fromkeys(("docs", "doc"), "docs"),
    **dict.fromkeys(("chore", "build", "ci", "refactor", "style", "test", "deps"), "chore"),
    **dict.fromkeys(("security", "sec"), "security"),
}
AREA_WORDS: Mapping[str, re.Pattern[str]] = {
    "security": KIND_WORDS["security"],
    "docs": KIND_WORDS["docs"],
    "auth": _words(r"auth\w*|login|log ?in|sign ?in|oauth\w*|tokens?|passwords?|sessions?|permissions?|anmeld\w+"),
    "ci": _words(r"ci|workflows?|actions?|pipelines?|jenkins|travis|runners?"),
    "build": _words(r"build\w*|compil\w+|install\w*|packag\w+|makefile|docker\w*|cmake|webpack|gradle|maven|wheels?"),
    "dependencies": _words(r"dependenc\w+|deps|dependabot|renovate|bump\w*|lock ?file"),
    "performance": _words(r"slow\w*|performance|memory|leaks?|latency|timeouts?|cpu|throughput|langsam|lent[eo]?"),
    "tests": _words(r"tests?|testing|flaky|coverage|pytest|jest|fixtures?"),
    "ui": _words(r"ui|ux|css|buttons?|layout|render\w*|dark mode|screens?|mobile|browsers?|page|icons?"),
    "api": _words(r"apis?|endpoints?|rest|graphql|http\w*|requests?|responses?|webhooks?|sdk|status code"),
    "data": _words(r"database|sql\w*|postgres\w*|mysql|migrations?|schema|queries|query|redis|kafka|cache|json|csv"),
}
AREA_LABEL = re.compile(r"(?:area|component|scope|module|pkg|package)\s*[:/]\s*([\w. -]{1,40})", re.IGNORECASE)
SEVERITY_LABELS: Mapping[Severity, re.Pattern[str]] = {
    "critical": re.compile(r"critical|blocker|\bp0\b|sev-?[01]\b|urgent", re.IGNORECASE),
    "high": re.compile(r"high|\bp1\b|sev-?2\b|regression|security", re.IGNORECASE),
    "low": re.compile(r"\blow\b|minor|trivial|\bp[345]\b|good first issue", re.IGNORECASE),
}
SEVERITY_WORDS: Mapping[Severity, re.Pattern[str]] = {
    "critical": _words(
        r"data loss|los(?:es|t|ing) (?:all )?(?:my |our |the )?data|production (?:is )?down|outage"
        r"|remote code execution|rce|0-?day|corrupt\w*|datenverlust"
    ),
    "high": _words(
        r"crash\w*|segfault|panics?|regression|vulnerab\w+|urgent|blocker|blocks (?:us|release)|deadlock|hangs?"
    ),
    "low": _words(r"typos?|spell\w*|cosmetic|minor|nit|trivial"),
}
SCRIPTS = (
    ("ja", re.compile(r"[\u3040-\u30ff]")),
    ("ko", re.compile(r"[\uac00-\ud7af]")),
    ("zh", re.compile(r"[\u4e00-\u9fff]")),
    ("uk", re.compile(r"[іїєґІЇЄҐ]")),
    ("ru", re.compile(r"[\u0400-\u04ff]")),
    ("ar", re.compile(r"[\u0600-\u06ff]")),
    ("he", re.compile(r"[\u0590-\u05ff]")),
    ("hi", re.compile(r"[\u0900-\u097f]")),
    ("el", re.compile(r"[\u0370-\u03ff]")),
    ("th", re.compile(r"[\u0e00-\u0e7f]")),
)
SCRIPT_SHARE_MIN = 0.1
"""Texts about programs are full of Latin names, whatever their language is."""
STOPWORDS: Mapping[str, frozenset[str]] = {
    "en": _set("the and is are was it this that with for not to of in you when i my be from on have as but"),
    "de": _set("der die das und ist nicht ich ein eine mit auf für wenn wird den dem zu von es im auch bei"),
    "fr": _set("le la les et est une des pas je ne que pour dans sur avec il ce quand du au vous nous"),
    "es": _set("el la los las y es una que no para con por en se mi cuando del un al como pero"),
    "pt": _set("o os as e é uma que não para com por em se meu quando do da um ao no na mas"),
    "it": _set("il lo gli e è una che non per con di si mio quando del della un al nel ma sono"),
    "nl": _set("de het een en is niet ik met op voor als wordt van te in dat bij ook maar er"),
    "pl": _set("i w na nie jest to się z do że po jak gdy dla przez ale od który mnie"),
    "tr": _set("ve bir bu için değil ile çok ne zaman var yok ama gibi daha olarak ben"),
    "sv": _set("och är att det en ett inte jag med på för när som av den till har men"),
}
CODE = re.compile(r"```.*?(?:```|\Z)|`[^`\n]*`|https?://\S+", re.DOTALL)
WORD = re.compile(r"[^\W\d_]+")
FENCE = re.compile(r"```([A-Za-z+#]{1,12})\s*$", re.MULTILINE)
FILE = re.compile(r"(?<![\w@])((?:[\w.-]{1,60}/){0,12}[\w-]{1,80}(?:\.[\w-]{1,40}){0,2}\.([A-Za-z]{1,5}))\b(?![:/]/)")
FENCES = {"py": "Python", "python": "Python", "js": "JavaScript", "javascript": "JavaScript", "ts": "TypeScript"} | {
    "typescript": "TypeScript", "go": "Go", "rust": "Rust", "rs": "Rust", "java": "Java", "kotlin": "Kotlin",
    "rb": "Ruby", "ruby": "Ruby", "php": "PHP", "c": "C", "cpp": "C++", "csharp": "C#", "cs": "C#", "swift": "Swift",
}  # fmt: skip
SUFFIXES = {"py": "Python", "js": "JavaScript", "jsx": "JavaScript", "ts": "TypeScript", "tsx": "TypeScript"} | {
    "go": "Go", "rs": "Rust", "java": "Java", "kt": "Kotlin", "rb": "Ruby", "php": "PHP", "c": "C", "h": "C",
    "cpp": "C++", "cc": "C++", "hpp": "C++", "cs": "C#", "swift": "Swift",
}  # fmt: skip
OTHER_SUFFIXES = _set("md rst txt json toml yml yaml lock css html sql sh xml ini cfg gradle proto ipynb svg")
TRACES = (
    ("Python", re.compile(r"Traceback \(most recent call last\)|^\w*Error: ", re.MULTILINE)),
    ("Java", re.compile(r"\(\w+\.java:\d+\)|java\.lang\.")),
    ("Go", re.compile(r"goroutine \d+|\.go:\d+")),
    ("Rust", re.compile(r"thread '[^']*' panicked|\.rs:\d+")),
    ("JavaScript", re.compile(r"Cannot read propert|is not a function|node_modules")),
    ("C#", re.compile(r"System\.\w+Exception|\.cs:line \d+")),
    ("PHP", re.compile(r"PHP (?:Fatal|Warning|Notice)|\.php on line \d+")),
    ("Ruby", re.compile(r"NoMethodError|\.rb:\d+:in ")),
)
TEXT_PLACES = ("pull_request", "issue", "discussion")


@agent
async def triage(webhook: Webhook) -> IssueTriaged | PullTriaged:
    """Classify one text of people. A missing field counts as empty."""
    facts = _facts(webhook)
    if not webhook.kind_of_event.startswith("pull_request"):
        return IssueTriaged(**facts)
    listed = [f.get("filename") for f in webhook.items("pull_request", "files") if isinstance(f, dict)]
    named = [m[0] for m in FILE.findall(f"{facts['title']}\n{facts['body']}") if _is_file(m[1])]
    paths = [webhook.text("comment", "path"), *(p for p in listed if isinstance(p, str)), *named]
    return PullTriaged(
        **facts,
        draft=webhook.flag("pull_request", "draft"),
        merged=webhook.flag("pull_request", "merged"),
        open=webhook.text("pull_request", "state") != "closed",
        additions=webhook.number("pull_request", "additions"),
        deletions=webhook.number("pull_request", "deletions"),
        changed_files=webhook.number("pull_request", "changed_files"),
        head=webhook.text("pull_request", "head", "ref"),
        base=webhook.text("pull_request", "base", "ref"),
        default_branch=webhook.text("repository", "default_branch"),
        paths=list(dict.fromkeys(p[:NAME_CHARS_MAX] for p in paths if p))[:PATHS_MAX],
        review_state=webhook.text("review", "state").lower(),
        from_fork=webhook.flag("pull_request", "head", "repo", "fork"),
    )


def _facts(webhook: Webhook) -> dict[str, Any]:
    """Everything that issues and pull requests have in common."""
    place = next((p for p in TEXT_PLACES if webhook.obj(p)), "issue")
    said_in = next((p for p in ("comment", "review", "answer") if webhook.obj(p)), place)
    title = webhook.text(place, "title", chars_max=TITLE_CHARS_MAX)
    body = webhook.text(place, "body", chars_max=TEXT_CHARS_MAX)
    comment = webhook.text(said_in, "body", chars_max=TEXT_CHARS_MAX) if said_in != place else ""
    names = [label.get("name") for label in webhook.items(place, "labels") if isinstance(label, dict)]
    labels = [name.strip()[:NAME_CHARS_MAX] for name in names if isinstance(name, str) and name.strip()][:LABELS_MAX]
    whole = f"{body}\n{comment}" if comment else body
    kind, confidence = kind_of(title, whole, labels)
    return {
        "item": _item(webhook, place),
        "repository": webhook.repository,
        "event": webhook.kind_of_event,
        "action": webhook.kind_of_action,
        "number": webhook.number(place, "number") or 0,
        "title": title,
        "body": body,
        "comment": comment,
        "author": webhook.text(said_in, "user", "login") or webhook.text("sender", "login"),
        "author_is_bot": webhook.text(said_in, "user", "type") == "Bot",
        "association": webhook.text(said_in, "author_association").lower() or "none",
        "url": webhook.text(said_in, "html_url", chars_max=500) or webhook.text(place, "html_url", chars_max=500),
        "labels": labels,
        "kind": kind,
        "kind_confidence": confidence,
        "area": area_of(title, f"{whole}\n{webhook.text('comment', 'path')}", labels),
        "severity": severity_of(kind, f"{title}\n{whole}", labels),
        "language": language_of(f"{title}\n{whole}"),
        "code_language": code_language_of(f"{title}\n{whole}") or webhook.text("repository", "language"),
        "created_at": webhook.text(place, "created_at", chars_max=40),
        "day": webhook.day,
    }


def _item(webhook: Webhook, place: str) -> str:
    """A name for the thing that stays the same over all events about it."""
    number = webhook.number(place, "number")
    if number is not None:
        return (
            f"{webhook.repository}/discussions/{number}" if place == "discussion" else f"{webhook.repository}#{number}"
        )
    commit = re.sub(r"[^0-9A-Za-z]", "", webhook.text("comment", "commit_id"))[:12]
    return f"{webhook.repository}@{commit}" if commit else webhook.repository


def kind_of(title: str, text: str, labels: list[str]) -> tuple[Kind, float]:
    """The most likely kind and how sure that is; ('other', 0.0) without any sign."""
    scores: Counter[Kind] = Counter()
    prefix = PREFIX.match(title)
    if prefix and prefix[1].lower() in PREFIX_KINDS:
        scores[PREFIX_KINDS[prefix[1].lower()]] += LABEL_SCORE
    for kind, words in KIND_WORDS.items():
        if any(KIND_LABELS[kind].search(label) for label in labels):
            scores[kind] += LABEL_SCORE
        scores[kind] += TITLE_SCORE * len(_distinct(words, title))
        scores[kind] += min(BODY_SCORE_MAX, len(_distinct(words, text)))
    best = max(get_args(Kind), key=lambda k: scores[k])
    if not scores[best]:
        return "other", 0.0
    return best, round(scores[best] / (scores.total() + 1), 2)


def area_of(title: str, text: str, labels: list[str]) -> str:
    """The part of the product it is about: a label or the prefix's scope says it, else words; 'general' without any."""
    for label in labels:
        named = AREA_LABEL.match(label)
        if named:
            return _slug(named[1])
    prefix = PREFIX.match(title)
    if prefix and prefix[2] and prefix[1].lower() in PREFIX_KINDS:
        return _slug(prefix[2])
    scores = {a: TITLE_SCORE * len(_distinct(w, title)) + len(_distinct(w, text)) for a, w in AREA_WORDS.items()}
    best = max(scores, key=lambda a: scores[a])
    return best if scores[best] else "general"


def severity_of(kind: Kind, text: str, labels: list[str]) -> Severity:
    """Labels decide; then words; then the kind."""
    for severity, pattern in SEVERITY_LABELS.items():
        if any(pattern.search(label) for label in labels):
            return severity
    for severity, words in SEVERITY_WORDS.items():
        if words.search(text):
            return severity
    return "high" if kind == "security" else "medium" if kind == "bug" else "low"


def language_of(text: str) -> str:
    """ISO 639-1 by script, else by the commonest small words; 'und' when two or fewer speak for none."""
    prose = CODE.sub(" ", text)
    words = [word.lower() for word in WORD.findall(prose)]
    letters = sum(map(len, words))
    for language, letter in SCRIPTS:
        if letters and len(letter.findall(prose)) >= letters * (SCRIPT_SHARE_MIN if language != "uk" else 0.02):
            return language
    hits = {language: sum(word in stop for word in words) for language, stop in STOPWORDS.items()}
    first, second = sorted(hits.values(), reverse=True)[:2]
    return max(hits, key=lambda k: hits[k]) if first >= 2 and first > second else "und"


def code_language_of(text: str) -> str:
    """The programming language that fences, traces and file names speak for, by GitHub's names; '' for none."""
    votes: Counter[str] = Counter()
    for fence in FENCE.findall(text):
        votes[FENCES.get(fence.lower(), "")] += 3
    for language, trace in TRACES:
        votes[language] += 2 * bool(trace.search(text))
    for _, suffix in FILE.findall(text):
        votes[SUFFIXES.get(suffix.lower(), "")] += 1
    del votes[""]
    best = max(votes, key=lambda k: votes[k], default="")
    return best if votes[best] else ""


def _distinct(pattern: re.Pattern[str], text: str) -> set[str]:
    return {found.lower() for found in pattern.findall(text)}


def _is_file(suffix: str) -> bool:
    return suffix.lower() in SUFFIXES or suffix.lower() in OTHER_SUFFIXES


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9._-]+", "-", text.strip().lower()).strip("-") or "general"
