"""Declared words and values: what is noted when they are not what was expected."""

import pytest

from mesh.core.errors import InvalidInput, Problem
from mesh.core.topology.fields import FieldReader
from mesh.core.topology.units import whole
from mesh.core.topology.yaml_nodes import Node, Scalar, read


def parsed(text: str) -> Node:
    root, problems = read(text)
    assert root is not None
    assert not problems
    return root


def plain(text: str) -> str:
    if " " in text:
        raise InvalidInput("no blank", code="x", expected="one word", got=text, remedy="Remove it")
    return text


def test_known_words_are_found_with_their_lines() -> None:
    reader = FieldReader()
    fields = reader.fields("mesh", parsed("a: 1\nb: 2"), ("a", "b", "c"))
    assert set(fields) == {"a", "b"}
    assert reader.lines == {"mesh.a": 1, "mesh.b": 2}
    assert reader.value(fields, "mesh", "a", whole(0, 9), 7) == 1
    assert reader.value(fields, "mesh", "c", whole(0, 9), 7) == 7
    assert reader.problems == []


def test_a_misspelt_word_is_a_problem_and_its_value_still_counts() -> None:
    reader = FieldReader()
    fields = reader.fields("mesh", parsed("x: 1\ntimout: 5"), ("timeout", "retry"))
    assert reader.problems == [
        Problem(1, 'mesh: unknown key "x"', "Known here: timeout, retry"),
        Problem(2, 'mesh: unknown key "timout"', "Did you mean timeout?"),
    ]
    assert reader.value(fields, "mesh", "timeout", whole(0, 9), 0) == 5
    assert reader.lines["mesh.timeout"] == 2


@pytest.mark.parametrize(("text", "line"), [("timout: 5\ntimeout: 6", 2), ("timeout: 6\ntimout: 5", 1)])
def test_a_misspelt_word_does_not_replace_the_right_one(text: str, line: int) -> None:
    reader = FieldReader()
    fields = reader.fields("", parsed(text), ("timeout",))
    assert reader.value(fields, "", "timeout", whole(0, 9), 0) == 6
    assert reader.lines["timeout"] == line


def test_a_reserved_word_is_distinguished_from_an_unknown_one() -> None:
    reader = FieldReader()
    assert reader.fields("a", parsed("vote: 1"), ("on",), ("vote",)) == {}
    assert [p.what for p in reader.problems] == ["a.vote: not supported yet in this version"]


@pytest.mark.parametrize(("text", "got"), [("[a]", "a list"), ("word", '"word"')])
def test_another_shape_than_a_mapping_is_a_problem(text: str, got: str) -> None:
    reader = FieldReader()
    assert reader.fields("a", parsed(text), ("on",)) == {}
    assert [p.what for p in reader.problems] == [f"a: expected a mapping of on, got {got}"]


def test_no_mapping_at_all_is_an_empty_one() -> None:
    reader = FieldReader()
    assert reader.fields("a", None, ("on",)) == {}
    assert reader.fields("a", Scalar(1, ""), ("on",)) == {}
    assert reader.problems == []


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("n: [1]", "a.n: expected a single value, got a list"),
        ("n: {b: 1}", "a.n: expected a single value, got a mapping"),
        ("n:", "a.n: no value"),
        ("n: 12", 'a.n: invalid value; expected a whole number from 0 to 9, got "12"'),
    ],
)
def test_a_value_that_cannot_be_read_is_a_problem_and_its_default_counts(text: str, what: str) -> None:
    reader = FieldReader()
    assert reader.value(reader.fields("a", parsed(text), ("n",)), "a", "n", whole(0, 9), 3) == 3
    assert [p.what for p in reader.problems] == [what]
    assert all(p.remedy for p in reader.problems)


def test_names_are_one_or_a_list_each_once() -> None:
    reader = FieldReader()
    assert reader.names("on", parsed("a"), plain) == ("a",)
    assert reader.names("on", parsed("[a, b]"), plain) == ("a", "b")
    assert reader.problems == []
    assert reader.names("on", parsed("- a\n- b c\n- a\n- [d]"), plain) == ("a",)
    assert reader.names("on", parsed("{a: b}"), plain) == ()
    assert [(p.line, p.what) for p in reader.problems] == [
        (2, "on: no blank; expected one word, got b c"),
        (3, "on: a is listed twice"),
        (4, "on: expected a single value, got a list"),
        (1, "on: expected a name or a list of names, got a mapping"),
    ]


def test_each_name_knows_its_line() -> None:
    reader = FieldReader()
    reader.names("x.on", parsed("- a\n- b"), plain)
    assert reader.lines == {"x.on[a]": 1, "x.on[b]": 2}
