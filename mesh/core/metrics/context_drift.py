"""Context drift: how far the words of an agent's events are from those of the request that caused them.

The text of a payload is its texts and numbers, without the names of fields. Its vector has one dimension for each
n-gram of words (one word, and two in sequence), hashed to 16 bits; a component is 1 where the n-gram occurs. Drift is
the cosine distance of two vectors: 0 for the same n-grams, 1 for none in common. The first `WORDS_MAX` words count.
"""

import re
from binascii import crc32
from itertools import pairwise
from math import sqrt
from struct import pack
from typing import Any, Final

from mesh.core.protocol.event import parse_json

WORDS_MAX: Final = 128
"""Words of a payload that are compared: the first ones."""
VALUES_MAX: Final = 256
_WORD: Final = re.compile(r"\w+")


def vector_of(data: bytes) -> bytes:
    """Return the hashes of the n-grams of a payload, sorted, two bytes each; empty without words."""
    words = _words(parse_json(data))
    grams = {crc32(word) & 0xFFFF for word in words}
    grams.update(crc32(b"%b %b" % pair) & 0xFFFF for pair in pairwise(words))
    return pack(f"{len(grams)}H", *sorted(grams))


def drift_of(first: bytes, second: bytes) -> float | None:
    """Return the cosine distance of two vectors; None if one of them is empty."""
    if not first or not second:
        return None
    if first == second:
        return 0.0
    mine, others = set(memoryview(first).cast("H")), memoryview(second).cast("H")
    common = sum(1 for gram in others if gram in mine)
    return 1.0 - common / sqrt(len(mine) * len(others))


def _words(value: Any) -> list[bytes]:
    words: list[bytes] = []
    waiting, seen = [value], 0
    while waiting and len(words) < WORDS_MAX and seen < VALUES_MAX:
        one = waiting.pop()
        seen += 1
        if isinstance(one, dict):
            waiting.extend(reversed(one.values()))
        elif isinstance(one, list):
            waiting.extend(reversed(one))
        elif isinstance(one, str):
            words += [word.encode() for word in _WORD.findall(one[:4_096].casefold())]
        elif one is not None and not isinstance(one, bool):
            words.append(str(one).encode())
    return words[:WORDS_MAX]
