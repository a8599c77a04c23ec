"""Did you mean …? The known word nearest to one that nobody knows."""

from collections.abc import Iterable
from difflib import get_close_matches

WORD_CHARS_MAX = 128
"""Longer words are not compared: likeness costs the product of both lengths."""


def nearest(word: str, known: Iterable[str], similarity_min: float = 0.7) -> str | None:
    """The word of `known` most like `word`, or None when none is like it. `word` itself counts when it is known.

    Likeness is difflib's ratio, 0 to 1. A word that differs only in capitals is always like.
    """
    if len(word) > WORD_CHARS_MAX:
        return None
    candidates = {name.lower(): name for name in sorted(known, reverse=True) if len(name) <= WORD_CHARS_MAX}
    found = get_close_matches(word.lower(), candidates, n=1, cutoff=similarity_min)
    return candidates[found[0]] if found else None
