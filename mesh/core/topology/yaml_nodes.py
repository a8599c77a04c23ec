"""Read YAML as nodes with line numbers, and write documents as YAML.

Nodes are built from the parser's events on an explicit stack, so deep nesting cannot exhaust the call stack. An alias
is the same node again, never a copy, so aliases of aliases cannot exhaust memory. Scalars stay the text that was
written: `on` is a word here, not the `true` of YAML 1.1. Objects, tags and merge keys are refused.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

import yaml

from mesh.core.errors import Problem
from mesh.core.expression.field_path import excerpt

TEXT_CHARS_MAX: Final = 262_144
DEPTH_MAX: Final = 20

_TAGS: Final = frozenset(
    {None, "!", *(f"tag:yaml.org,2002:{name}" for name in ("str", "int", "float", "bool", "null"))}
)
_NULLS: Final = frozenset({"", "~", "null", "Null", "NULL"})


@dataclass(frozen=True, slots=True, eq=False)
class Scalar:
    """A single value: its text as written, without quotes."""

    line: int
    text: str
    plain: bool = True
    """The value is written without quotes."""

    @property
    def is_null(self) -> bool:
        """Whether the value is missing or `null`."""
        return self.plain and self.text in _NULLS


@dataclass(frozen=True, slots=True, eq=False)
class Items:
    """A list."""

    line: int
    items: "list[Node]" = field(default_factory=list)


@dataclass(frozen=True, slots=True, eq=False)
class Entries:
    """A mapping, in the order of the text. It has the first of duplicate keys."""

    line: int
    entries: "dict[str, Node]" = field(default_factory=dict)
    key_lines: dict[str, int] = field(default_factory=dict)
    """Key → its line."""


Node = Scalar | Items | Entries


def read(text: str) -> tuple[Node | None, list[Problem]]:
    """Return the document and its problems as YAML; None in place of a document that cannot be read. Never raises."""
    if len(text) > TEXT_CHARS_MAX:
        what = f"the file has {len(text)} characters, at most {TEXT_CHARS_MAX} are read"
        return None, [Problem(1, what, "Split the mesh in two")]
    builder = _Builder()
    line = 1
    try:
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            line = line if event.start_mark is None else event.start_mark.line + 1
            if not builder.take(event, line):
                return None, builder.problems
    except yaml.YAMLError as error:
        return None, [*builder.problems, _syntax_problem(error, text)]
    except (ValueError, OverflowError) as error:
        # PyYAML converts \U escapes and %YAML versions without a check of their size.
        return None, [*builder.problems, Problem(line, f"not YAML: {excerpt(str(error))}", "Remove the number")]
    return builder.root, builder.problems


class _Builder:
    """A builder of nodes from events of the parser."""

    def __init__(self) -> None:
        self.root: Node | None = None
        self.problems: list[Problem] = []
        self.open: list[Items | Entries] = []
        self.keys: list[Scalar | None] = []
        """The key of each open node whose value is not read yet."""
        self.anchors: dict[str, Node] = {}
        self.documents = 0

    def take(self, event: yaml.Event, line: int) -> bool:
        """Consume one event. Return False if reading must stop."""
        if isinstance(event, yaml.DocumentStartEvent):
            self.documents += 1
            if self.documents > 1:
                self.add(line, "a second YAML document begins", "Remove the `---`: topics.yaml is one document")
                return False
        elif isinstance(event, yaml.CollectionEndEvent):
            self.open.pop()
            self.keys.pop()
        elif isinstance(event, yaml.AliasEvent):
            anchor = str(event.anchor)
            if anchor not in self.anchors:
                self.add(
                    line, f"alias *{anchor} has no anchor before it", f"Write &{anchor} where the value stands first"
                )
            self.place(self.anchors.get(anchor, Scalar(line, "")))
        elif isinstance(event, yaml.ScalarEvent | yaml.CollectionStartEvent):
            return self.node(event, line)
        return True

    def node(self, event: yaml.ScalarEvent | yaml.CollectionStartEvent, line: int) -> bool:
        if event.tag not in _TAGS:
            what = f"tag {excerpt(str(event.tag))} is not supported"
            self.add(line, what, "Remove it: values are plain text, lists and mappings")
        made: Node
        if isinstance(event, yaml.ScalarEvent):
            made = Scalar(line, event.value, event.style is None)
        else:
            made = Items(line) if isinstance(event, yaml.SequenceStartEvent) else Entries(line)
        if event.anchor is not None:
            self.anchors[event.anchor] = made
        self.place(made)
        if not isinstance(made, Scalar):
            self.open.append(made)
            self.keys.append(None)
            if len(self.open) > DEPTH_MAX:
                self.add(line, f"nested more than {DEPTH_MAX} deep", "Flatten it: no key of topics.yaml nests so deep")
                return False
        return True

    def place(self, node: Node) -> None:
        if not self.open:
            self.root = node
            return
        parent = self.open[-1]
        if isinstance(parent, Items):
            parent.items.append(node)
        elif (key := self.keys[-1]) is None:
            if isinstance(node, Scalar):
                self.keys[-1] = node
            else:
                self.add(node.line, "invalid key: expected a name, got a list or a mapping", "Write a name")
                self.keys[-1] = Scalar(node.line, "")
        else:
            self.keys[-1] = None
            self.put(parent, key, node)

    def put(self, parent: Entries, key: Scalar, node: Node) -> None:
        if key.text == "<<" and key.plain:
            self.add(key.line, "merge keys (<<) are not supported", "Repeat the keys, or use an alias of a whole value")
        elif key.text in parent.entries:
            first = parent.key_lines[key.text]
            self.add(key.line, f"{excerpt(key.text)} is a duplicate of line {first}", "Remove or rename one of them")
        else:
            parent.entries[key.text] = node
            parent.key_lines[key.text] = key.line

    def add(self, line: int, what: str, remedy: str) -> None:
        self.problems.append(Problem(line, what, remedy))


_REMEDIES: Final[Mapping[str, str]] = {
    "'\\t'": "Indent with spaces, not tabs",
    "cannot start any token": "Put the value in quotes",
    "mapping values are not allowed": "Put a value with `: ` in it in quotes, or check the indentation of this line",
    "could not find expected ':'": "Write `key: value`, with a space after the colon",
    "<block end>": "Check the indentation of this line and the one before",
    "stream end": "Close the bracket, brace or quote that was opened",
    "end of stream": "Close the quote that was opened",
    "expected ',' or": "Put a comma between the parts, or close the bracket",
}


def _syntax_problem(error: yaml.YAMLError, text: str) -> Problem:
    if isinstance(error, yaml.MarkedYAMLError):
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark is not None else 1
        what = f"{error.problem or 'unreadable'}{f' {error.context}' if error.context else ''}"
    else:  # the text has a character that YAML forbids
        line = text.count("\n", 0, getattr(error, "position", 0)) + 1
        what = str(error).splitlines()[0]
    remedy = next((remedy for sign, remedy in _REMEDIES.items() if sign in what), "Correct this line")
    return Problem(line, f"not YAML: {what}", remedy)


def to_yaml(documents: Iterable[object]) -> str:
    """Write plain values (dicts, lists, texts, numbers) as YAML documents, in their order, each after a `---`.

    Texts are quoted where YAML 1.1 or 1.2 might read a number, a date or a word of its own."""
    texts = (yaml.dump(one, Dumper=_Writer, sort_keys=False, allow_unicode=True, width=_WIDTH_MAX) for one in documents)
    return "".join(f"---\n{text}" for text in texts)


_WIDTH_MAX: Final = 1_000_000


class _Writer(yaml.SafeDumper):
    """A dumper that indents lists below their keys, and writes repeated values in full instead of as aliases."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)

    def ignore_aliases(self, data: object) -> bool:
        return True


def _text_node(writer: _Writer, text: str) -> yaml.Node:
    # 1e3 and 0o17 are texts in YAML 1.1 and numbers in 1.2, so every text that does not begin as a word is quoted.
    style = None if text[:1].isalpha() or text[:1] == "/" else '"'
    return writer.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Writer.add_representer(str, _text_node)


def texts_in(node: Node) -> Iterator[str]:
    """Yield every scalar at or below a node, and every key. Nodes with several aliases are visited once."""
    seen: set[int] = set()
    waiting: list[Node] = [node]
    while waiting:
        node = waiting.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, Scalar):
            yield node.text
        elif isinstance(node, Items):
            waiting.extend(node.items)
        else:
            yield from node.entries
            waiting.extend(node.entries.values())
