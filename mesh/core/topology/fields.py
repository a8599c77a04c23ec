"""Read declared words and values from a document, and collect problems with their places and lines.

A *place* is the path to a value, like `agents.fraud.timeout`. The reader raises no errors. A value that cannot be read
becomes a problem and is replaced by its default, so that the rest can be read.
"""

from collections.abc import Callable, Collection, Mapping
from typing import TypeVar

from mesh.core.errors import InvalidInput, Problem
from mesh.core.expression.field_path import excerpt
from mesh.core.suggest import nearest
from mesh.core.topology.yaml_nodes import Entries, Items, Node, Scalar

T = TypeVar("T")
Fields = Mapping[str, Node]

LATER = "Remove it; a later version will support it"


class FieldReader:
    """A reader of nodes. Each call extends `problems` and `lines` (place → line, of written places only)."""

    def __init__(self, problems: Collection[Problem] = ()) -> None:
        self.problems = list(problems)
        self.lines: dict[str, int] = {}

    def add(self, line: int, what: str, remedy: str) -> None:
        """Add a problem."""
        self.problems.append(Problem(line, what, remedy))

    def fields(self, place: str, node: Node | None, words: Collection[str], later: Collection[str] = ()) -> Fields:
        """Return the values of a mapping with keys out of `words`. Words of `later` are known but not yet supported.

        The value under a misspelt word counts for the word that it resembles, unless the mapping has that word too.
        """
        found: dict[str, Node] = {}
        for key, value in self.entries(place, node, f"a mapping of {', '.join(words)}").items():
            line = self.lines[_join(place, key)]
            if key in words:
                found[key] = value
            elif key in later:
                self.add(line, f"{_join(place, key)}: not supported yet in this version", LATER)
            else:
                guess = nearest(key, words)
                remedy = f"Did you mean {guess}?" if guess else f"Known here: {', '.join(words)}"
                self.add(line, f"{place or 'top level'}: unknown key {excerpt(key)}", remedy)
                if guess is not None:
                    self.lines.setdefault(_join(place, guess), line)
                    found.setdefault(guess, value)
        return found

    def entries(self, place: str, node: Node | None, expected: str) -> Fields:
        """Return the entries of a mapping with any keys; an empty mapping if the value is missing."""
        if node is None or (isinstance(node, Scalar) and node.is_null):
            return {}
        if not isinstance(node, Entries):
            self.mismatch(place, node, expected)
            return {}
        self.lines.update((_join(place, key), line) for key, line in node.key_lines.items())
        return node.entries

    def value(self, fields: Fields, place: str, word: str, read: Callable[[str], T], default: T) -> T:
        """Return the value under a word, or the default if it is missing or cannot be read."""
        node = fields.get(word)
        if node is None:
            return default
        found = self.scalar(_join(place, word), node, read)
        return default if found is None else found

    def scalar(self, place: str, node: Node, read: Callable[[str], T]) -> T | None:
        """Return one value, or None if it cannot be read."""
        if not isinstance(node, Scalar):
            self.mismatch(place, node, "a single value")
            return None
        if node.is_null:
            self.add(node.line, f"{place}: no value", "Write one, or remove the key")
            return None
        try:
            return read(node.text)
        except InvalidInput as error:
            column = f" at {error.where}" if error.where else ""
            what = f"{place}: {error.what}{column}"
            what += f"; expected {error.expected}" if error.expected else ""
            what += f", got {error.got}" if error.got else ""
            self.add(node.line, what, error.remedy)
            return None

    def names(self, place: str, node: Node, read: Callable[[str], str]) -> tuple[str, ...]:
        """Return the readable names of one name or a list of names, each once."""
        if isinstance(node, Entries):
            self.mismatch(place, node, "a name or a list of names")
            return ()
        found: dict[str, int] = {}
        for item in node.items if isinstance(node, Items) else [node]:
            name = self.scalar(place, item, read)
            if name is None:
                continue
            if name in found:
                self.add(item.line, f"{place}: {name} is listed twice", "Remove one of them")
            found.setdefault(name, item.line)
        self.lines.update((f"{place}[{name}]", line) for name, line in found.items())
        return tuple(found)

    def mismatch(self, place: str, node: Node, expected: str) -> None:
        """Add a problem: a value of another shape was expected."""
        got = "a list" if isinstance(node, Items) else "a mapping" if isinstance(node, Entries) else excerpt(node.text)
        self.add(node.line, f"{place or 'top level'}: expected {expected}, got {got}", "Write it in this shape")


def _join(place: str, word: str) -> str:
    return f"{place}.{word}" if place else word
