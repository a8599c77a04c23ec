"""Conditions with missing fields and missing events."""

from typing import Any

import pytest

from mesh.core.expression.condition import parse
from mesh.core.expression.partial_evaluation import is_refuted, missing_paths

TYPES = ("a", "b")


@pytest.mark.parametrize(
    ("text", "payload", "names"),
    [
        ("n > 3", {"n": 1}, []),
        ("n > 3", {"m": 1}, ["n"]),
        ("n > 3", {"n": None}, []),
        ("n > 3", None, ["n"]),
        ("n > 3", [1], ["n"]),
        ("n > 3 and not (m or n < 1)", {}, ["n", "m"]),
        ("items[1].sku == 'x'", {"items": [{"sku": "x"}]}, ["items[1].sku"]),
        ("items[0] == 1", {"items": [1]}, []),
        ("vip != null and vip", {}, []),
        ('tier in ["gold", null]', {}, []),
        ("n == m", {"n": 1}, ["m"]),
    ],
)
def test_a_field_is_missing_unless_it_is_compared_with_null(text: str, payload: Any, names: list[str]) -> None:
    assert missing_paths(parse(text), {"a": payload}) == names


def test_fields_of_events_that_are_not_there_are_not_missing() -> None:
    assert missing_paths(parse("a.n > 3 and b.n > 3", TYPES), {"a": {"n": 1}}) == []


@pytest.mark.parametrize(
    ("text", "refuted"),
    [
        ("a.n > 3", True),
        ("a.n < 3", False),
        ("b.n > 3", False),
        ("a.n > 3 and b.n > 3", True),
        ("b.n > 3 and a.n > 3", True),
        ("a.n > 3 or b.n > 3", False),
        ("a.n > 3 or not a.ok", True),
        ("not (a.n < 3 or b.n > 3)", True),
        ("not (a.n < 3 and b.n > 3)", False),
        ("not b.ok", False),
        ("a.n == b.n", False),
        ("a.m > 3", False),
        ("false and b.ok", True),
    ],
)
def test_a_condition_is_refuted_whatever_the_other_event_holds(text: str, *, refuted: bool) -> None:
    assert is_refuted(parse(text, TYPES), {"a": {"n": 1, "ok": True}}) is refuted


def test_what_is_refuted_does_not_hold_whatever_comes() -> None:
    payloads: list[Any] = [{}, {"n": 0}, {"n": 9}, {"ok": True}, None, 1]
    for text in ("a.n > 3 and b.n > 3", "a.n > 3 or not a.ok", "not (a.n < 3 or b.n > 3)"):
        condition = parse(text, TYPES)
        assert is_refuted(condition, {"a": {"n": 1, "ok": True}})
        assert not any(condition.holds({"a": {"n": 1, "ok": True}, "b": other}) for other in payloads)
