"""The grammar of conditions: text → tree. `condition` evaluates the trees.

or         = and ("or" and)*
and        = not ("and" not)*
not        = "not" not | comparison
comparison = operand [("==" | "!=" | "<" | "<=" | ">" | ">=" | "in" | "not in") operand]
operand    = path | number | string | "true" | "false" | "null" | "[" [literal ("," literal)*] "]" | "(" or ")"
"""

import math
import re
from typing import Any, Final, NamedTuple

from mesh.core.expression.field_path import (
    STEP,
    STRING,
    WORDS,
    ConditionInvalid,
    Path,
    check_text,
    excerpt,
    quote,
    split_path,
    unquote,
)

DEPTH_MAX = 20
LIST_ITEMS_MAX = 100

OPERATORS: Final = frozenset({"==", "!=", "<", "<=", ">", ">=", "in", "not in"})

_CONSTANTS: Final[dict[str, bool | None]] = {"true": True, "false": False, "null": None}
_MISTAKEN: Final = {**{word: word for word in WORDS}, "none": "null", "nil": "null"}
_TOKEN = re.compile(
    rf"""(?P<space>\s+)
    |(?P<path>[A-Za-z_][A-Za-z0-9_-]*(?:{STEP})*|(?:{STRING})(?:{STEP})+)
    |(?P<number>-?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?(?![A-Za-z0-9_.]))
    |(?P<string>{STRING})
    |(?P<sign>==(?!=)|!=(?!=)|<=|>=|<(?!>)|>|\(|\)|\[|\]|,)""",
    re.VERBOSE | re.DOTALL,
)
_ARITHMETIC = "There is no arithmetic here; let the agent before emit the value"
_HINTS: Final = (
    ("==", "Write =="),
    ("!==", "Write !="),
    ("=", "Write == to compare"),
    ("&", "Write `and`"),
    ("|", "Write `or`"),
    ("!", "Write `not`, or != to compare"),
    ("<>", "Write !="),
    ("'", "Close the string with '"),
    ('"', 'Close the string with "'),
    ("{", "Objects cannot be written here; compare their fields"),
    *((sign, _ARITHMETIC) for sign in "+-*/%"),
)


class Literal(NamedTuple):
    """A constant; an array is a tuple."""

    value: Any


class Comparison(NamedTuple):
    """`left operator right`, with one of OPERATORS."""

    operator: str
    left: Path | Literal
    right: Path | Literal


class Not(NamedTuple):
    """The negation of its part."""

    part: "Node"


class Junction(NamedTuple):
    """`and` or `or` of two or more parts."""

    word: str
    parts: "tuple[Node, ...]"


Node = Path | Literal | Comparison | Not | Junction


def parse_tree(text: str) -> Node:
    """Read a condition. Raises ConditionInvalid with column and remedy."""
    check_text(text, "a condition")
    return _Parser(_tokens(text), len(text)).whole()


def text_of(node: Node, *, within: str = "") -> str:
    """Return the canonical text of a tree. `within`: the word above it, which decides about parentheses."""
    if isinstance(node, Path):
        return str(node)
    if isinstance(node, Literal):
        return _literal_text(node.value)
    if isinstance(node, Comparison):
        return f"{text_of(node.left)} {node.operator} {text_of(node.right)}"
    if isinstance(node, Not):
        return f"not {text_of(node.part, within='not')}"
    text = f" {node.word} ".join(text_of(part, within=node.word) for part in node.parts)
    loose = within == "not" or within == node.word or (within == "and" and node.word == "or")
    return f"({text})" if loose else text


def _literal_text(value: Any) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(_literal_text(item) for item in value)}]"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return quote(value) if isinstance(value, str) else repr(value)


# ---------------------------------------------------------------------------------------------------------- reading


class _Token(NamedTuple):
    kind: str
    text: str
    column: int


def _tokens(text: str) -> list[_Token]:
    found: list[_Token] = []
    position = 0
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            rest = text[position:]
            raise ConditionInvalid(
                f"unexpected {excerpt(rest[:1])}",
                column=position + 1,
                remedy=next((hint for sign, hint in _HINTS if rest.startswith(sign)), "Remove it, or quote it"),
            )
        if match.lastgroup != "space":
            kind = "word" if match.group() in WORDS else match.lastgroup or ""
            found.append(_Token(kind, match.group(), position + 1))
        position = match.end()
    return found


class _Parser:
    """A recursive-descent parser. `depth` counts open parentheses and `not`s, so that recursion is bounded."""

    def __init__(self, tokens: list[_Token], length: int) -> None:
        self.tokens = tokens
        self.at = 0
        self.depth = 0
        self.end = _Token("end", "", length + 1)

    @property
    def next(self) -> _Token:
        return self.tokens[self.at] if self.at < len(self.tokens) else self.end

    def accept(self, text: str) -> bool:
        if self.next.kind in ("word", "sign") and self.next.text == text:
            self.at += 1
            return True
        return False

    def whole(self) -> Node:
        node = self.junction("or")
        if self.next is not self.end:
            remedy = "Join conditions with `and` or `or`"
            if self.next.text == "(":
                remedy = "There are no functions here; let the agent before emit the value"
            elif self.next.kind == "number":
                remedy = _ARITHMETIC
            raise self.unexpected("an operator, `and`, `or` or the end", remedy)
        return _must_decide(node, 1)

    def junction(self, word: str) -> Node:
        parts: list[Node] = []
        columns: list[int] = []
        while not parts or self.accept(word):
            columns.append(self.next.column)
            parts.append(self.junction("and") if word == "or" else self.negation())
        if len(parts) == 1:
            return parts[0]
        return Junction(word, tuple(map(_must_decide, parts, columns)))

    def negation(self) -> Node:
        if not self.accept("not"):
            return self.comparison()
        self.deeper()
        column = self.next.column
        node = Not(_must_decide(self.negation(), column))
        self.depth -= 1
        return node

    def comparison(self) -> Node:
        left_column = self.next.column
        left = self.operand()
        sign = self.operator()
        if sign is None:
            return left
        right_column = self.next.column
        right = _must_be_value(self.operand(), right_column)
        if sign.endswith("in") and isinstance(right, Literal) and not isinstance(right.value, tuple):
            raise ConditionInvalid(
                f"nothing can be in {_literal_text(right.value)}",
                column=right_column,
                expected="a list or a field after `in`",
                remedy='Write a list, like `in ["a", "b"]`',
            )
        column = self.next.column
        if self.operator() is not None:
            raise ConditionInvalid(
                "comparisons cannot be chained", column=column, remedy="Write it like `a < b and b < c`"
            )
        return Comparison(sign, _must_be_value(left, left_column), right)

    def operator(self) -> str | None:
        token = self.next
        if token.kind not in ("sign", "word"):
            return None
        if token.text == "not" and [t.text for t in self.tokens[self.at + 1 : self.at + 2]] == ["in"]:
            self.at += 2
            return "not in"
        if token.text not in OPERATORS:
            return None
        self.at += 1
        return token.text

    def operand(self) -> Node:
        if self.accept("("):
            self.deeper()
            node = self.junction("or")
            if not self.accept(")"):
                raise self.unexpected("`)`", "Close the parenthesis")
            self.depth -= 1
            return node
        if self.accept("["):
            return self.list_literal()
        if self.next.kind == "path":
            return self.path()
        return self.literal("a field, a value or `(`")

    def path(self) -> Path:
        token = self.next
        meant = _MISTAKEN.get(token.text.lower())
        if meant is not None:
            raise ConditionInvalid(
                f"{excerpt(token.text)} is not a word of conditions",
                column=token.column,
                remedy=f"Write `{meant}`, or put the type of event before it if a field is meant",
            )
        self.at += 1
        return split_path(token.text, token.column)

    def list_literal(self) -> Literal:
        items: list[Any] = []
        while not self.accept("]"):
            if items and not self.accept(","):
                raise self.unexpected("`,` or `]`", "Close the list")
            if len(items) == LIST_ITEMS_MAX:
                raise ConditionInvalid(
                    f"a list of more than {LIST_ITEMS_MAX} values",
                    column=self.next.column,
                    remedy="Let the agent before emit a field that says it",
                )
            items.append(self.literal("a number, a string, true, false or null").value)
        return Literal(tuple(items))

    def literal(self, expected: str) -> Literal:
        token = self.next
        value: Any
        if token.kind == "string":
            value = unquote(token.text, token.column)
        elif token.kind == "number":
            value = _number(token)
        elif token.kind == "word" and token.text in _CONSTANTS:
            value = _CONSTANTS[token.text]
        else:
            raise self.unexpected(expected, "Quote it, if text is meant" if token.kind == "path" else "Complete it")
        self.at += 1
        return Literal(value)

    def deeper(self) -> None:
        self.depth += 1
        if self.depth > DEPTH_MAX:
            raise ConditionInvalid(
                f"nested more than {DEPTH_MAX} deep", column=self.next.column, remedy="Say it with fewer parentheses"
            )

    def unexpected(self, expected: str, remedy: str) -> ConditionInvalid:
        what = "it ends too early" if self.next is self.end else f"unexpected {excerpt(self.next.text)}"
        return ConditionInvalid(what, column=self.next.column, expected=expected, remedy=remedy)


def _number(token: _Token) -> int | float:
    if token.text.lstrip("-").isdigit():
        return int(token.text)
    value = float(token.text)
    if math.isinf(value):
        raise ConditionInvalid(f"{token.text} is too large", column=token.column, remedy="Write a smaller number")
    return value


def _must_decide(node: Node, column: int) -> Node:
    """Refuse a value where a condition is required: `a and 1`."""
    if isinstance(node, Literal) and not isinstance(node.value, bool):
        raise ConditionInvalid(
            f"{_literal_text(node.value)} is neither true nor false",
            column=column,
            expected="a comparison",
            remedy="Compare a field with it, like `field == value`",
        )
    return node


def _must_be_value(node: Node, column: int) -> Path | Literal:
    """Refuse a comparison of comparisons: `(a < b) == true`."""
    if not isinstance(node, Path | Literal):
        raise ConditionInvalid(
            "a condition cannot be compared",
            column=column,
            expected="a field or a value",
            remedy="Join conditions with `and`, `or`, `not`",
        )
    return node
