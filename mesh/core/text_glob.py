"""Globs over any text: `*` is any sequence of characters, `?` is one character, nothing else is special."""

import re
from collections.abc import Callable


def glob_test(pattern: str) -> Callable[[str], bool]:
    """Return a function that tests whether a whole text matches. It takes time linear in the text for each star."""
    head, *rest = (re.escape(part).replace(r"\?", ".") for part in re.sub(r"\*+", "*", pattern).split("*"))
    text = head
    if rest:
        # Each part matches at its first position only (an atomic group): else many stars backtrack exponentially.
        text += "".join(f"(?>.*?{part})" for part in rest[:-1] if part) + f".*{rest[-1]}"
    matches = re.compile(text + r"\Z", re.DOTALL).match
    return lambda key: matches(key) is not None
