"""Values of our classes as JSON and back: nothing is lost, what was added since takes its default."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, NamedTuple

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.core.topology.shape import SHARED_MAX, Shapes, ShapeUnknown, Special


class Point(NamedTuple):
    x: int
    y: int = 0


USUAL = Point(1)
NOTHING: Mapping[str, Any] = MappingProxyType({})


@dataclass(slots=True)
class Thing:
    name: str
    data: bytes
    path: tuple[str, ...] = ()
    where: Point = USUAL
    many: tuple[Point, ...] = ()
    pair: tuple[str, bytes] = ("", b"")
    maybe: Point | None = None
    by_name: dict[str, Point] = field(default_factory=dict)
    by_path: dict[tuple[str, ...], Point] = field(default_factory=dict)
    shared: Mapping[str, dict[tuple[str, ...], Point]] = field(default_factory=lambda: NOTHING)
    counts: Mapping[str, int] = field(default_factory=dict)
    words: frozenset[str] = frozenset()
    factor: float = 1.0


POINTS = st.builds(Point, st.integers(-(2**63), 2**63 - 1), st.integers(0, 9))
NAMES = st.text(max_size=5)
PATHS = st.lists(NAMES, max_size=3).map(tuple)
THINGS = st.builds(
    Thing,
    NAMES,
    st.binary(max_size=9) | NAMES.map(str.encode),
    PATHS,
    POINTS,
    st.lists(POINTS, max_size=3).map(tuple),
    st.tuples(NAMES, st.binary(max_size=3)),
    st.none() | POINTS,
    st.dictionaries(NAMES, POINTS, max_size=3),
    st.dictionaries(PATHS, POINTS, max_size=3),
    st.dictionaries(NAMES, st.dictionaries(PATHS, POINTS, max_size=2), max_size=2),
    st.dictionaries(NAMES, st.integers(0, 9), max_size=2),
    st.frozensets(NAMES, max_size=3),
    st.floats(allow_nan=False, allow_infinity=False),
)


def there_and_back(hint: Any, value: Any) -> Any:
    shapes = Shapes()
    told = orjson.loads(orjson.dumps(shapes.plain(hint)(value)))
    return Shapes(fields=shapes.fields).value(hint)(told)


@given(THINGS)
def test_a_value_comes_back_as_it_was(thing: Thing) -> None:
    assert there_and_back(Thing, thing) == thing


def test_the_order_of_a_mapping_is_kept() -> None:
    thing = Thing("a", b"", by_path={("z",): Point(1), ("a",): Point(2)}, by_name={"z": Point(1), "a": Point(2)})
    back = there_and_back(Thing, thing)
    assert (list(back.by_path), list(back.by_name)) == ([("z",), ("a",)], ["z", "a"])


def test_a_class_of_one_field_is_a_row_like_any_other() -> None:
    class One(NamedTuple):
        data: bytes

    class Two(NamedTuple):
        name: str

    assert there_and_back(One, One(b"\xff")) == One(b"\xff")
    assert there_and_back(Two, Two("x")) == Two("x")


def test_a_field_that_was_added_since_takes_its_default_and_the_order_does_not_matter() -> None:
    value = Shapes(fields={"Point": ["x"]}).value(Point)
    assert value([7]) == Point(7, 0)
    assert Shapes(fields={"Point": ["y", "x"]}).value(Point)([1, 7]) == Point(7, 1)


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"Point": ["x", "y", "z"]}, "Point has no field z"),
        ({"Point": ["y"]}, "Point needs x, which is not there"),
        ({}, "Point needs x, which is not there"),
    ],
)
def test_a_field_that_is_gone_or_new_without_a_default_is_not_guessed(fields: dict[str, list[str]], text: str) -> None:
    with pytest.raises(ShapeUnknown, match=text):
        Shapes(fields=fields).value(Point)


@pytest.mark.parametrize("hint", [Any, object, int | str, list[object], dict[str, Any]])
def test_a_type_that_cannot_be_kept_is_refused_before_anything_is_written(hint: Any) -> None:
    with pytest.raises(TypeError, match="cannot be written"):
        Shapes().plain(hint)
    with pytest.raises(TypeError, match="cannot be read"):
        Shapes().value(hint)


def test_texts_paths_and_defaults_that_return_often_are_one_object() -> None:
    shapes = Shapes()
    plain = shapes.plain(Thing)
    rows = orjson.dumps([plain(Thing(f"n{n % 2}", b"", ("a", "b"))) for n in range(4)])
    value = Shapes(fields=shapes.fields).value(Thing)
    first, _, third, _ = (value(row) for row in orjson.loads(rows))
    assert first.name is third.name
    assert first.path is third.path
    assert first.where is third.where is USUAL
    assert first.shared is third.shared is NOTHING
    assert first.by_name is not third.by_name, "a dict may be changed by its owner"


def test_texts_that_never_return_do_not_pile_up() -> None:
    shapes = Shapes()
    rows = [shapes.plain(Thing)(Thing(f"name {n}", b"")) for n in range(2 * SHARED_MAX)]
    value = Shapes(fields=shapes.fields).value(Thing)
    last = [value(row) for row in orjson.loads(orjson.dumps(rows))][-1]
    assert value(orjson.loads(orjson.dumps(rows[-1]))).name is not last.name


def test_a_class_may_say_itself_how_it_is_written() -> None:
    @dataclass
    class Secret:
        text: str

    special: Special = {Secret: (lambda secret: secret.text[::-1], lambda plain: Secret(plain[::-1]))}
    plain = Shapes(special=special).plain(tuple[Secret, ...])((Secret("ab"),))
    assert plain == ["ba"]
    assert Shapes(special=special).value(tuple[Secret, ...])(plain) == (Secret("ab"),)
