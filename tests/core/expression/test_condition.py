"""Conditions: the table of comparisons, binding to types, no exceptions."""

import pickle
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mesh.core.expression.condition import Condition, are_equal, is_in, parse
from mesh.core.expression.field_path import ConditionInvalid, parse_path

PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""A busy machine is no mistake of ours."""

TYPES = ("order.placed", "fraud.scored", "fraud")
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text("ab1", max_size=3),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
)
OPERANDS = st.sampled_from(
    ["a", "b", "x.a", "x[0]", "t.c.a", "1", "-2.5", "'a'", "'1'", "true", "null", "[]", "['a', 'b']", "[1, null]"]
)
COMPARISONS = st.builds(
    "{} {} {}".format, OPERANDS, st.sampled_from(["==", "!=", "<", "<=", ">", ">="]), OPERANDS
) | st.builds("{} {} {}".format, OPERANDS, st.sampled_from(["in", "not in"]), st.sampled_from(["a", "x", "[1, 'a']"]))
CONDITIONS = st.recursive(
    COMPARISONS | st.sampled_from(["a", "t.b", "true", "false"]),
    lambda inner: (
        st.builds("not ({})".format, inner)
        | st.builds("({}) {} ({})".format, inner, st.sampled_from(["and", "or"]), inner)
    ),
    max_leaves=8,
)


def holds(text: str, /, **payload: Any) -> bool:
    return parse(text).holds({"t": payload})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("n == 1", True),
        ("n == 1.0", True),
        ("n != 2", True),
        ("n < 2", True),
        ("n <= 1", True),
        ("n > 1", False),
        ("n >= 1", True),
        ("1 < n", False),
        ("n < half", False),
        ("half < n", True),
        ("s == 'abc'", True),
        ("s < 'abd'", True),
        ("s >= 'abd'", False),
        ("s == s", True),
        ("yes == true", True),
        ("no == false", True),
        ("nothing == null", True),
        ("missing == null", True),
        ("missing != null", False),
        ("s != null", True),
        ("list == [1, 'a', null]", True),
        ("list == [1, 'a']", False),
        ("list == [1, 'b', null]", False),
        ("list == [2, 'a', null]", False),
        ("s == other", False),
        ("list == list", True),
        ("list != list", False),
        ("deep == deep", True),
        ("deep != null", True),
        ("deep.x[1].y == 2", True),
        ("deep.x[9].y == null", True),
        ("yes", True),
        ("no", False),
        ("n", False),
        ("s", False),
        ("missing", False),
        ("not missing", True),
        ("yes and not no", True),
        ("yes and no", False),
        ("no or yes", True),
        ("no or no", False),
        ("yes and yes and no", False),
        ("no or no or yes", True),
        ("true", True),
        ("false or no", False),
    ],
)
def test_what_holds(text: str, expected: bool) -> None:
    payload = {
        "n": 1,
        "half": 0.5,
        "s": "abc",
        "other": "abd",
        "yes": True,
        "no": False,
        "nothing": None,
        "list": [1, "a", None],
        "deep": {"x": [1, {"y": 2}]},
    }
    assert holds(text, **payload) is expected


KINDS: dict[str, Any] = {"null": None, "bool": True, "number": 1, "string": "1", "array": [1], "object": {"a": 1}}


@pytest.mark.parametrize("left", KINDS)
@pytest.mark.parametrize("right", KINDS)
def test_kinds_that_differ_are_not_equal_and_only_numbers_and_strings_have_an_order(left: str, right: str) -> None:
    payload = {"a": KINDS[left], "b": KINDS[right]}
    ordered = left == right and left in ("number", "string")
    assert holds("a == b", **payload) is (left == right)
    assert holds("a != b", **payload) is (left != right)
    assert holds("a <= b", **payload) is ordered
    assert holds("a >= b", **payload) is ordered
    assert holds("a < b", **payload) is False
    assert holds("a > b", **payload) is False


@pytest.mark.parametrize("literal", ["null", "true", "1", "1.0", "'1'", "[1]"])
def test_a_literal_means_the_same_as_a_field_that_holds_it(literal: str) -> None:
    value = {"null": None, "true": True, "1": 1, "1.0": 1.0, "'1'": "1", "[1]": [1]}[literal]
    for sign in ("==", "!=", "<", "<=", ">", ">="):
        for other in KINDS.values():
            direct = holds(f"a {sign} {literal}", a=other)
            assert direct is holds(f"a {sign} b", a=other, b=value), (sign, other)


def test_booleans_are_no_numbers() -> None:
    assert not holds("a == 1", a=True)
    assert not holds("a == true", a=1)
    assert not holds("a < 2", a=True)
    assert not holds("a in [1, 0]", a=True)
    assert not holds("a == [1]", a=[True])
    assert not holds("a", a=1)


def test_in_finds_a_value_in_a_list_literal() -> None:
    assert holds("a in ['x', 'y']", a="y")
    assert not holds("a in ['x', 'y']", a="z")
    assert holds("a not in ['x', 'y']", a="z")
    assert not holds("a in ['x']", a=["x"])
    assert not holds("a in ['x']", a={})
    assert holds("a in [1, null, 'x']", a=None)
    assert holds("missing in [null]")
    assert not holds("a in []", a=1)
    assert holds("a in [1, 2]", a=2.0)


def test_in_finds_a_value_in_a_field() -> None:
    assert holds("'x' in tags", tags=["w", "x"])
    assert not holds("'x' in tags", tags=[["x"]])
    assert holds("'ell' in text", text="hello")
    assert not holds("1 in text", text="1")
    assert not holds("'a' in thing", thing={"a": 1})
    assert not holds("'a' in missing")
    assert holds("'a' not in missing")
    assert not holds("null in missing")


def test_a_path_that_begins_with_a_type_reads_that_event() -> None:
    condition = parse("fraud.scored.score < 0.7 and order.placed.n == 1", TYPES)
    assert condition.bound == ("fraud.scored", "order.placed")
    assert condition.holds({"fraud.scored": {"score": 0.5}, "order.placed": {"n": 1}})
    assert not condition.holds({"fraud.scored": {"score": 0.9}, "order.placed": {"n": 1}})
    assert not condition.holds({"order.placed": {"n": 1}}), "an event that is not at hand is null"


def test_a_path_without_a_type_reads_the_only_event() -> None:
    condition = parse("score < 0.7", TYPES)
    assert condition.bound == (None,)
    assert condition.holds({"fraud.scored": {"score": 0.5}})
    assert not condition.holds({"fraud.scored": {"score": 0.5}, "order.placed": {"score": 0.5}})
    assert not condition.holds({})


def test_binding_later_is_the_same_as_binding_at_once() -> None:
    text = "not (fraud.scored.score in ['a'] or fraud.x == order.placed.y)"
    assert parse(text).bind(TYPES) == parse(text, TYPES)
    assert parse(text) != parse(text, TYPES)
    assert parse(text, TYPES).paths[1].type == "fraud"


def test_conditions_with_the_same_meaning_written_alike_are_equal_and_hashable() -> None:
    one, other = parse("a == 'x'  and (b)"), parse('a == "x" and b')
    assert one == other
    assert hash(one) == hash(other)
    assert parse("a == 1") != parse("a == true"), "though Python says 1 == True"


def test_a_condition_survives_pickling() -> None:
    condition = parse("fraud.scored.score < 0.7", TYPES)
    again = pickle.loads(pickle.dumps(condition))
    assert again == condition
    assert again.holds({"fraud.scored": {"score": 0.5}})


def test_a_condition_is_frozen() -> None:
    with pytest.raises(AttributeError):
        parse("a").text = "b"  # type: ignore[misc]


def test_refusals_come_from_the_grammar() -> None:
    with pytest.raises(ConditionInvalid):
        parse("a = 1")
    assert parse_path("a.b").value({"a": {"b": 1}}) == 1


def test_deep_payloads_are_compared_without_recursion() -> None:
    def nest(bottom: Any) -> Any:
        for _ in range(100_000):
            bottom = [bottom]
        return bottom

    assert are_equal(nest(1), nest(1.0))
    assert not are_equal(nest(1), nest(True))
    assert not is_in(nest(1), nest(2))


@PATIENT
@given(CONDITIONS, st.dictionaries(st.sampled_from(["x", "t.c", "t"]), JSON, max_size=3))
def test_any_condition_is_true_or_false_of_any_payloads(text: str, payloads: dict[str, Any]) -> None:
    condition = parse(text, payloads)
    assert condition.holds(payloads) in (True, False)
    assert parse(str(condition), payloads) == condition


@PATIENT
@given(st.text(max_size=60), JSON)
def test_any_text_is_a_condition_or_a_typed_refusal(text: str, payload: Any) -> None:
    try:
        condition = parse(text)
    except ConditionInvalid:
        return
    assert isinstance(condition, Condition)
    assert condition.holds({"t": payload}) in (True, False)


@PATIENT
@given(JSON, JSON)
def test_equality_is_symmetric(a: Any, b: Any) -> None:
    assert are_equal(a, b) is are_equal(b, a)


def test_paths_without_a_type_can_be_bound_to_one() -> None:
    condition = parse("a == 1 and t.a == 2", ["t"]).bind_rest("rest")
    assert condition.holds({"t": {"a": 2}, "rest": {"a": 1}})
    assert not condition.holds({"t": {"a": 2}, "rest": {"t": {"a": 1}}})
