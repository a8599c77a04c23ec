"""YAML as nodes that know their line; what YAML allows and this language does not."""

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mesh.core.topology.yaml_nodes import DEPTH_MAX, TEXT_CHARS_MAX, Entries, Items, Scalar, read, texts_in, to_yaml

PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""A busy machine is no mistake of ours."""


def entries(text: str) -> Entries:
    root, problems = read(text)
    assert not problems
    assert isinstance(root, Entries)
    return root


def test_every_node_knows_its_line() -> None:
    root = entries("a: 1\n\n# note\nb:\n  - x\n  - {c: y,\n     d: z}\n")
    assert root.key_lines == {"a": 1, "b": 4}
    items = root.entries["b"]
    assert isinstance(items, Items)
    assert [item.line for item in items.items] == [5, 6]
    inner = items.items[1]
    assert isinstance(inner, Entries)
    assert inner.key_lines == {"c": 6, "d": 7}


@pytest.mark.parametrize("text", ["on", "yes", "010", "1:30", "2s", "2024-01-01", "0x1F", "1e3", ".inf"])
def test_a_scalar_is_the_text_as_written(text: str) -> None:
    value = entries(f"{text}: {text}").entries[text]
    assert isinstance(value, Scalar)
    assert (value.text, value.plain) == (text, True)


def test_quotes_are_taken_off_but_remembered() -> None:
    root = entries("a: 'null'\nb: null\nc:\nd: ~\ne: \"x\\ty\"")
    found = [(n.text, n.is_null) for n in root.entries.values() if isinstance(n, Scalar)]
    assert found == [("null", False), ("null", True), ("", True), ("~", True), ("x\ty", False)]


def test_an_alias_is_the_same_node_once_more() -> None:
    root = entries("a: &x {n: 1}\nb: *x\n")
    assert root.entries["a"] is root.entries["b"]


def test_aliases_of_aliases_cost_nothing() -> None:
    lines = ["a0: &a0 [x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 40)]
    root = entries("\n".join(lines))
    assert sorted(set(texts_in(root))) == sorted(["x", *(f"a{n}" for n in range(40))])


def test_an_alias_of_itself_ends() -> None:
    root, problems = read("a: &x [*x, y]")
    assert not problems
    assert root is not None
    assert set(texts_in(root)) == {"a", "y"}


@pytest.mark.parametrize(
    ("text", "line", "what", "remedy"),
    [
        ("a: 1\nb: 2\na: 3", 3, '"a" is a duplicate of line 1', "Remove or rename"),
        ("x: 1\na: !thing y", 2, '"!thing" is not supported', "Remove it"),
        ("a: !!python/object/apply:os.system [ls]", 1, "is not supported", "Remove it"),
        ("a: &x {n: 1}\nb: {<<: *x}", 2, "merge keys", "Repeat the keys"),
        ("a: 1\nb: *nope", 2, "*nope has no anchor", "&nope"),
        ("? [a]\n: b", 1, "invalid key", "Write a name"),
        ("a: 1\n---\nb: 2\n---\nc: 3", 2, "second YAML document", "Remove the `---`"),
        ("a:\n\tb: 1", 2, "cannot start any token", "Indent with spaces"),
        ("a: @x", 1, "cannot start any token", "quotes"),
        ("a: b: c", 1, "mapping values are not allowed", "quotes"),
        ("a: 1\nb: [x", 2, "stream end", "Close the bracket"),
        ("a: 'x", 1, "end of stream", "Close the quote"),
        ("- a\nb: c", 2, "<block end>", "indentation"),
        ("{a: 1\nb: 2}", 2, "expected ','", "comma"),
        ("a: 1\nb: \x07", 2, "unacceptable character", "Correct"),
        ('a: 1\nb: "\\UFFFFFFFF"', 2, "not YAML", "Remove"),
        (f"%YAML {'9' * 5000}.1\n--- a", 1, "not YAML", "Remove"),
        ("[" * 5000, 1, f"nested more than {DEPTH_MAX}", "Flatten"),
        ("- " * 5000, 1, f"nested more than {DEPTH_MAX}", "Flatten"),
        ("[\n" * 5000, DEPTH_MAX + 1, f"nested more than {DEPTH_MAX}", "Flatten"),
        ("#" * (TEXT_CHARS_MAX + 1), 1, "at most", "Split"),
    ],
)
def test_what_yaml_or_this_language_refuses_is_one_problem_with_its_line(
    text: str, line: int, what: str, remedy: str
) -> None:
    _, problems = read(text)
    assert [(p.line, what in p.what, remedy in p.remedy) for p in problems] == [(line, True, True)], problems


def test_of_keys_that_stand_twice_the_first_counts() -> None:
    root, problems = read("a: 1\na: 2\nb: 3")
    assert len(problems) == 1
    assert isinstance(root, Entries)
    assert [n.text for n in root.entries.values() if isinstance(n, Scalar)] == ["1", "3"]


def test_nothing_written_is_nothing() -> None:
    assert read("") == (None, [])
    assert read("# only a note\n") == (None, [])


def test_a_byte_order_mark_is_no_character() -> None:
    assert list(entries("\ufeffa: 1").entries) == ["a"]


@PATIENT
@given(st.text() | st.text("{}[]:,-?&*!|>'\"%@`# \n\tab<~.\\", max_size=60))
def test_any_text_is_a_document_or_problems(text: str) -> None:
    root, problems = read(text)
    if root is not None:
        list(texts_in(root))
    assert all(1 <= p.line <= len(text) + 2 and p.what and p.remedy for p in problems)


def test_what_was_written_reads_as_the_same_and_texts_stay_texts() -> None:

    texts = [
        "",
        "on",
        "yes",
        "null",
        "1e3",
        "0o17",
        "1_000",
        "2026-11-20",
        "~",
        "a: b",
        "- x",
        "# no",
        "é\n\x07",
        "=",
        "x" * 300,
    ]
    documents = [{"texts": texts, "number": 7, "nothing": None, "deep": [{"a": [1, {"b": True}]}]}, ["second"]]
    text = to_yaml(documents)
    assert list(yaml.safe_load_all(text)) == documents
    for word in ("1e3", "0o17"):
        assert f'- "{word}"\n' in text, "a number to YAML 1.2"
    assert "x" * 300 in text, "nothing is folded"


def test_the_same_value_twice_is_written_twice() -> None:
    shared = {"a": "b"}
    assert to_yaml([{"one": shared, "two": shared}]) == "---\none:\n  a: b\ntwo:\n  a: b\n"
