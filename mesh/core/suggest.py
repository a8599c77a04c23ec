"""Suggestions for unknown words: the most similar known word."""

from collections.abc import Iterable
from difflib import get_close_matches

WORD_CHARS_MAX = 128
"""Length of the longest word that is compared: the cost is the product of both lengths."""


def nearest(word: str, known: Iterable[str], similarity_min: float = 0.7) -> str | None:
    """Return the word of `known` that is most similar to `word`, or None. A known `word` is its own suggestion.

    Similarity is difflib's ratio, 0 to 1. A word that differs only in capitals has similarity 1.
    """
    if len(word) > WORD_CHARS_MAX:
        return None
    candidates = {name.lower(): name for name in sorted(known, reverse=True) if len(name) <= WORD_CHARS_MAX}
    found = get_close_matches(word.lower(), candidates, n=1, cutoff=similarity_min)
    return candidates[found[0]] if found else None


def did_you_mean(word: str, known: Iterable[str], otherwise: str = "") -> str:
    """Return `Did you mean 'x'?` with the most similar known word; `otherwise` if none is similar."""
    near = nearest(word, known)
    return f"Did you mean {near!r}?" if near else otherwise
