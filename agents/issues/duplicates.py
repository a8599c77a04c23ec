"""Look-alikes: other issues of the same repository whose texts resemble this one, kept on the board.

The agent *emits* a function of the text alone: its fingerprint, and the board key of its list of look-alikes. The list
itself depends on the order in which events arrive, and an outcome must not. The list therefore stays on the board, and
no outcome carries a copy. A list names only issues *older* than its own: of two issues the one that arrives second
finds the first, and the pair is entered under the younger. The lists, too, are thus equal in any order, unless an entry
was dropped in between (see below). The same event again changes nothing.

A fingerprint has 32 minhashes of the text's longer words and pairs of neighbours; 20 of them make 10 bands of 2. Each
band names one of 64 small lists on the board. Texts that share a band are compared hash by hash; at a resemblance of
0.4 five in six pairs share one, at 0.6 nearly all. Appending to a list and reading it is one atomic step, so of two
concurrent issues one sees the other. A repository has at most 640 lists of 24 entries; a full list drops its oldest.
"""

import re
from hashlib import blake2b
from itertools import pairwise
from typing import Any

from mesh import Context, agent

from .events import IssueCompared, IssueTriaged

HASHES = 32
BANDS = 10
ROWS = 2
BUCKETS = 64
ENTRIES_MAX = 24
LONG_WORD_CHARS_MIN = 4
"""Shorter words are in every text."""
WORDS_MIN = 5
"""Shorter texts resemble one another by chance."""
RESEMBLANCE_MIN = 0.4
LOOKALIKES_MAX = 10
HASH_DIGITS = 4

CJK = r"\u3040-\u30ff\u4e00-\u9fff\uac00-\ud7af"
WORD = re.compile(rf"[^\W{CJK}]+|[{CJK}]")
"""Scripts that write no spaces: each character is a word."""
UNSAFE = re.compile(r"[^A-Za-z0-9._/-]+")


@agent
async def duplicates(issue: IssueTriaged, ctx: Context) -> IssueCompared:
    """Compare an issue with what the board knows and enter every pair under the younger of the two."""
    words = [word.lower() for word in WORD.findall(f"{issue.title} {issue.body}")]
    place = f"issues/lookalikes/{UNSAFE.sub('/', issue.item).strip('/')}"
    compared = IssueCompared(
        fingerprint=blake2b(" ".join(words).encode(), digest_size=8).hexdigest(),
        comparable=len(words) >= WORDS_MIN and issue.number > 0,
        lookalikes_key=place,
    )
    if compared.comparable:
        hashes = minhash(words)
        own = {"item": issue.item, "key": place, "since": _since(issue), "hashes": hashes}
        for other in await _met(own, issue.repository, ctx):
            score = resemblance(hashes, other["hashes"])
            if score >= RESEMBLANCE_MIN:
                older, younger = sorted((own, other), key=lambda e: (e["since"], e["item"]))
                await _enter(older, younger, score, ctx)
    return compared


def minhash(words: list[str]) -> str:
    """32 minhashes of 16 bits in hexadecimal digits, of the longer words and all pairs of neighbours."""
    shingles = {word.encode() for word in words if len(word) >= LONG_WORD_CHARS_MIN}
    shingles |= {f"{one} {next}".encode() for one, next in pairwise(words)}
    size = HASHES * 2  # bytes
    digests = [blake2b(shingle, digest_size=size).digest() for shingle in shingles]
    return "".join(min(digest[i : i + 2] for digest in digests).hex() for i in range(0, size, 2))


def resemblance(one: str, other: str) -> float:
    """Estimated share of common shingles, 0..1: the share of equal minhashes."""
    step = HASH_DIGITS
    return round(sum(one[i : i + step] == other[i : i + step] for i in range(0, HASHES * step, step)) / HASHES, 2)


async def _met(own: dict[str, Any], repository: str, ctx: Context) -> list[dict[str, Any]]:
    """Leave our entry in each band's list, and answer the entries of other issues found there."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    digits = ROWS * HASH_DIGITS
    for band in range(BANDS):
        part = own["hashes"][band * digits : (band + 1) * digits]
        key = f"issues/seen/{repository}/{band}.{int(part, 16) % BUCKETS}"
        item = await ctx.board.get(key)
        if item is None or own not in item.value:
            item = await ctx.board.append(key, own, items_max=ENTRIES_MAX)
        found |= {(e["item"], e["hashes"]): e for e in item.value if e["item"] != own["item"]}
    return list(found.values())


async def _enter(older: dict[str, Any], younger: dict[str, Any], score: float, ctx: Context) -> None:
    """List `older` as a look-alike of `younger`. The best score wins, so the order of arrival leaves no trace."""

    def add(known: dict[str, float]) -> dict[str, float]:
        scores = known | {older["item"]: max(score, known.get(older["item"], 0.0))}
        best = sorted(scores.items(), key=lambda pair: (-pair[1], pair[0]))
        return dict(best[:LOOKALIKES_MAX])

    found = await ctx.board.get(younger["key"])
    known = found.value if found else {}
    if add(known) != known:
        await ctx.board.update(younger["key"], add, default={})


def _since(issue: IssueTriaged) -> str:
    """Return the sort key of issues by age: creation time, then number."""
    return f"{issue.created_at}/{issue.number:012d}"
