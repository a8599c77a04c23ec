"""Spam and abuse: how likely it is that a text wants to sell, to trick or to hurt rather than to help.

Signals of the text and of who sent it are weighed and summed, up to 1. People who belong to the repository get half,
bots that GitHub knows nothing. The signals are named in the result, so that a moderator sees why.
"""

import re
from collections import Counter
from collections.abc import Iterator

from mesh import agent

from .events import IssueScreened, IssueTriaged, PullScreened, PullTriaged

LINKS_MANY = 4
WORDS_SHOUTED_MIN = 8
TRUSTED = frozenset({"owner", "member", "collaborator"})

LINK = re.compile(r"https?://([^\s/)>\]\"']{1,200})", re.IGNORECASE)
SHORTENERS = frozenset(
    {"bit.ly", "tinyurl.com", "t.co", "goo.gl", "is.gd", "cutt.ly", "rb.gy", "shorturl.at", "t.me", "wa.me"}
)
SHADY_ENDINGS = (".top", ".xyz", ".click", ".loan", ".win", ".bet", ".casino", ".buzz")
WORD = re.compile(r"[^\W\d_]{2,}")
INVISIBLE = re.compile(r"[\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufeff]")
REPEATED = re.compile(r"([^\W_])\1{9,}")
MENTION = re.compile(r"(?<![\w/])@[A-Za-z0-9-]{1,39}")
PHRASES = {
    "selling": re.compile(
        r"\b(?:buy (?:now|cheap|followers)|limited offer|casino|betting|viagra|cialis|forex|seo services|backlinks"
        r"|work from home|earn \$?\d+|make money|click here|free (?:gift|iphone|robux|v-?bucks)|whats ?app \+?\d"
        r"|discount code|best price|escorts?|essay writing)\b",
        re.IGNORECASE,
    ),
    "crypto lure": re.compile(
        r"\b(?:airdrop|claim your (?:tokens?|reward)|connect your wallet|seed phrase|wallet validation|presale"
        r"|eligible for (?:an? )?(?:airdrop|reward))\b",
        re.IGNORECASE,
    ),
    "malware lure": re.compile(
        r"\b(?:download (?:this|the) (?:fix|patch|file)|password:? ?(?:changeme|1234)"
        r"|(?:mediafire|anonfiles|gofile)\.\w+|fix\.(?:zip|rar|exe)|try this fix)\b",
        re.IGNORECASE,
    ),
    "abuse": re.compile(
        r"\b(?:idiots?|stupid|morons?|f+u+c+k+\w*|shit\w*|kill yourself|kys|garbage (?:devs?|maintainers?)|scum"
        r"|piece of (?:crap|junk)|worst (?:devs?|maintainers?))\b",
        re.IGNORECASE,
    ),
}
WEIGHTS = {
    "selling": 0.5,
    "crypto lure": 0.6,
    "malware lure": 0.6,
    "abuse": 0.5,
    "shady link": 0.3,
    "many links": 0.25,
    "mostly links": 0.25,
    "shouting": 0.2,
    "repetition": 0.25,
    "invisible characters": 0.3,
    "mass mention": 0.35,
    "empty": 0.1,
    "stranger": 0.05,
}


@agent
async def spam(event: IssueTriaged | PullTriaged) -> IssueScreened | PullScreened:
    """Score the text of an event. 0 is clean; from 0.5 a person should look; from 0.8 it is spam."""
    signals = [] if event.author_is_bot else sorted(set(_signals(event)))
    score = min(1.0, sum(WEIGHTS[signal] for signal in signals))
    score = round(score / 2 if event.association in TRUSTED else score, 2)
    if isinstance(event, PullTriaged):
        return PullScreened(score=score, signals=signals)
    return IssueScreened(score=score, signals=signals)


def _signals(event: IssueTriaged | PullTriaged) -> Iterator[str]:
    text = event.said
    words = WORD.findall(text)
    yield from (signal for signal, phrase in PHRASES.items() if phrase.search(text))
    hosts = [host.lower() for host in LINK.findall(text)]
    if any(host in SHORTENERS or host.endswith(SHADY_ENDINGS) for host in hosts):
        yield "shady link"
    if len(hosts) >= LINKS_MANY and event.association not in TRUSTED:
        yield "many links"
    if hosts and len(words) < 6 * len(hosts) and sum(len(w) for w in words) < 20 + 12 * len(hosts):
        yield "mostly links"
    if len(words) >= WORDS_SHOUTED_MIN and sum(word.isupper() for word in words) > 0.7 * len(words):
        yield "shouting"
    if REPEATED.search(text) or _repeats_itself(words):
        yield "repetition"
    if INVISIBLE.search(text):
        yield "invisible characters"
    if len(set(MENTION.findall(text))) > 8:
        yield "mass mention"
    if not words:
        yield "empty"
    if event.association in ("none", "first_timer", "first_time_contributor"):
        yield "stranger"


def _repeats_itself(words: list[str]) -> bool:
    """Whether one word of four letters or more is a third of a text of thirty words or more."""
    commonest = Counter(word.lower() for word in words if len(word) >= 4).most_common(1)
    return bool(commonest) and len(words) >= 30 and commonest[0][1] * 3 >= len(words)
