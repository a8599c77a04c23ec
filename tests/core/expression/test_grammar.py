"""The grammar of conditions: refused texts with column and remedy; canonical text."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mesh.core.expression.field_path import TEXT_CHARS_MAX, ConditionInvalid, Path
from mesh.core.expression.grammar import (
    DEPTH_MAX,
    LIST_ITEMS_MAX,
    OPERATORS,
    Comparison,
    Junction,
    Literal,
    Node,
    Not,
    parse_tree,
    text_of,
)

PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""A busy machine is no mistake of ours."""

A, B, C = Path(("a",)), Path(("b",)), Path(("c",))


def test_and_binds_tighter_than_or_and_not_tighter_than_and() -> None:
    assert parse_tree("a or not b and c") == Junction("or", (A, Junction("and", (Not(B), C))))


def test_parentheses_change_the_order() -> None:
    assert parse_tree("(a or b) and c") == Junction("and", (Junction("or", (A, B)), C))
    assert parse_tree("not (a and b)") == Not(Junction("and", (A, B)))


def test_a_comparison_binds_tighter_than_not() -> None:
    assert parse_tree("not a == 1") == Not(Comparison("==", A, Literal(1)))


def test_chains_of_one_word_are_flat() -> None:
    assert parse_tree("a and b and c") == Junction("and", (A, B, C))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", 1),
        ("-1", -1),
        ("0.5", 0.5),
        ("-2e3", -2000.0),
        ("1E-2", 0.01),
        ('"x y"', "x y"),
        ("'it\\'s'", "it's"),
        ('"\\\\ \\t\\r"', "\\ \t\r"),
        ("true", True),
        ("false", False),
        ("null", None),
        ("[]", ()),
        ('[1, "a", null, true]', (1, "a", None, True)),
        ('"größer"', "größer"),
    ],
)
def test_literals(text: str, value: object) -> None:
    tree = parse_tree(f"a == {text}")
    assert tree == Comparison("==", A, Literal(value))
    assert isinstance(tree, Comparison)
    assert isinstance(tree.right, Literal)
    assert type(tree.right.value) is type(value)


def test_not_in_is_one_operator() -> None:
    assert parse_tree("a not in [1]") == Comparison("not in", A, Literal((1,)))
    assert parse_tree("not a in [1]") == Not(Comparison("in", A, Literal((1,))))


def test_keywords_are_names_after_a_dot() -> None:
    assert parse_tree("a.in.not == 1") == Comparison("==", Path(("a", "in", "not")), Literal(1))


@pytest.mark.parametrize(
    ("text", "column", "advice"),
    [
        ("", 1, "remove the key"),
        ("a = 1", 3, "=="),
        ("a === 1", 3, "=="),
        ("a && b", 3, "`and`"),
        ("a || b", 3, "`or`"),
        ("!a", 1, "`not`"),
        ("a <> 1", 3, "!="),
        ("a == 'x", 6, "Close the string"),
        ('a == "x', 6, "Close the string"),
        ("a + 1 > 2", 3, "arithmetic"),
        ("a -1 > 2", 3, "arithmetic"),
        ("a not [1]", 3, "Join"),
        ("a not b", 3, "Join"),
        ("len(a) > 2", 4, "no functions"),
        ("a == {}", 6, "Objects"),
        ("a == True", 6, "`true`"),
        ("a == None", 6, "`null`"),
        ("a AND b", 3, "`and` or `or`"),
        ("a == 1 b", 8, "Join"),
        ("(a == 1", 8, "Close the parenthesis"),
        ("a in [1, 2", 11, "Close the list"),
        ("a in [1 2]", 9, "Close the list"),
        ("a in [b]", 7, "Quote it"),
        ("a in [[1]]", 7, "Complete"),
        ("a in 'abc'", 6, "list"),
        ("a in 3", 6, "list"),
        ("a <", 4, "Complete"),
        ("< 1", 1, "Complete"),
        ("a < b < c", 7, "a < b and b < c"),
        ("(a < b) == true", 1, "and"),
        ("a == (b or c)", 6, "and"),
        ("a and 1", 7, "Compare"),
        ("not 'x'", 5, "Compare"),
        ("1", 1, "Compare"),
        ("[1]", 1, "Compare"),
        ("a == 1e999", 6, "smaller"),
        ("a == 12x", 6, "quote"),
        ("a == 1.5.2", 6, "quote"),
        ("a == '\\x'", 7, "backslash"),
        ("__import__('os')", 11, "no functions"),
        ("a[-1] == 2", 2, "Join"),
        ("a\ud800", 2, "Remove"),
    ],
)
def test_mistakes_are_refused_with_column_and_advice(text: str, column: int, advice: str) -> None:
    with pytest.raises(ConditionInvalid) as caught:
        parse_tree(text)
    assert (caught.value.column, advice in caught.value.remedy) == (column, True), str(caught.value)


def test_too_long_a_text_is_refused_and_the_longest_is_not() -> None:
    parse_tree("a == 1".ljust(TEXT_CHARS_MAX))
    with pytest.raises(ConditionInvalid, match="too long"):
        parse_tree("a == 1".ljust(TEXT_CHARS_MAX + 1))


def test_too_deep_a_text_is_refused_and_the_deepest_is_not() -> None:
    parse_tree("(" * DEPTH_MAX + "a" + ")" * DEPTH_MAX)
    for open_, close in (("(", ")"), ("not ", "")):
        with pytest.raises(ConditionInvalid, match="nested more than"):
            parse_tree(open_ * (DEPTH_MAX + 1) + "a" + close * (DEPTH_MAX + 1))


def test_side_by_side_is_not_deep() -> None:
    parse_tree(" and ".join(["(not a)"] * 50))


def test_too_long_a_list_is_refused_and_the_longest_is_not() -> None:
    parse_tree(f"a in [{','.join(['1'] * LIST_ITEMS_MAX)}]")
    with pytest.raises(ConditionInvalid, match="a list of more than"):
        parse_tree(f"a in [{','.join(['1'] * (LIST_ITEMS_MAX + 1))}]")


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("((a)) and((b))", "a and b"),
        ("a   ==  'x'", 'a == "x"'),
        ("a==1.50", "a == 1.5"),
        ("(a or b) and not (c and a)", "(a or b) and not (c and a)"),
        ("(a and b) or c", "a and b or c"),
        ("a and (b and c)", "a and (b and c)"),
        ("not(not a)", "not not a"),
        ("a not  in[ 1,'b' ]", 'a not in [1, "b"]'),
        ("a.'b c'.d", 'a."b c".d'),
    ],
)
def test_the_canonical_text_has_one_spelling(text: str, canonical: str) -> None:
    assert text_of(parse_tree(text)) == canonical


PATHS = st.lists(st.sampled_from(["a", "b-c", "odd name", "in", "é", "2"]), min_size=1, max_size=3).map(
    lambda names: Path(("x", *names))
)
ATOMS = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text("aé\"'\\\n ")
)
LITERALS = (ATOMS | st.lists(ATOMS, max_size=4).map(tuple)).map(Literal)
VALUES = PATHS | LITERALS
COMPARISONS = st.builds(Comparison, st.sampled_from(sorted(OPERATORS - {"in", "not in"})), VALUES, VALUES) | st.builds(
    Comparison, st.sampled_from(["in", "not in"]), VALUES, PATHS | st.lists(ATOMS, max_size=4).map(tuple).map(Literal)
)
TREES: st.SearchStrategy[Node] = st.recursive(
    COMPARISONS | PATHS | st.booleans().map(Literal),
    lambda inner: (
        st.builds(Not, inner)
        | st.builds(
            Junction,
            st.sampled_from(["and", "or"]),
            st.lists(inner, min_size=2, max_size=3).map(lambda part: tuple(part)),
        )
    ),
    max_leaves=6,
)


@PATIENT
@given(TREES)
def test_the_canonical_text_of_a_tree_reads_back_as_the_same_tree(tree: Node) -> None:
    text = text_of(tree)
    if len(text) <= TEXT_CHARS_MAX:
        again = parse_tree(text)
        assert again == tree
        assert text_of(again) == text


WORDS = st.lists(
    st.sampled_from(
        [
            "a",
            "b.c",
            "[0]",
            "==",
            "!=",
            "<",
            "<=",
            ">",
            ">=",
            "in",
            "not",
            "and",
            "or",
            "(",
            ")",
            "[",
            "]",
            ",",
            "1",
            "-2.5",
            "'x'",
            '"',
            "true",
            "null",
            ".",
            "=",
            "é",
        ]
    ),
    max_size=30,
).map(" ".join)


@PATIENT
@given(st.text(max_size=60) | WORDS)
def test_any_text_is_a_tree_or_a_typed_refusal(text: str) -> None:
    try:
        tree = parse_tree(text)
    except ConditionInvalid as error:
        refused = error
    else:
        assert text_of(parse_tree(text_of(tree))) == text_of(tree)
        return
    assert 1 <= refused.column <= len(text) + 1
    assert refused.remedy
    str(refused).encode()
