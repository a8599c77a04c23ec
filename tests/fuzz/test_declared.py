"""Whatever stands in topics.yaml, in a condition or in a value with a unit is read, or refused for a reason."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.core.errors import InvalidInput, TopologyInvalid
from mesh.core.expression.condition import parse
from mesh.core.expression.field_path import parse_path
from mesh.core.reason_codes import REASONS
from mesh.core.topology.loader import load
from mesh.core.topology.model import Topology
from mesh.core.topology.units import decimal, duration_ms, size_bytes, usd_micros
from tests.fuzz.material import fuzz, json_values, mutations

FILES = [path.read_text("utf-8") for path in sorted(Path(__file__).parents[1].glob("cli/project/*.yaml"))]
TOKENS = "order . total < >= == and or not ( ) 'x' 1e999 -1 in [ ] null"
WORDS = st.sampled_from(TOKENS.split())

UNITS = st.sampled_from(["", "s", "ms", "KB", "usd"])
AMOUNTS = st.text(max_size=12) | st.builds("{}{}".format, st.integers() | st.floats(), UNITS)


def refused(error: InvalidInput) -> None:
    assert error.code in REASONS
    assert str(error).isprintable()


def is_told(error: TopologyInvalid) -> None:
    assert error.problems
    for problem in error.problems:
        assert problem.line >= 1
        assert problem.what
        assert problem.what.isprintable()
        assert len(problem.what) < 1_000


def loaded(text: str | bytes) -> None:
    try:
        found = load(text)
    except TopologyInvalid as error:
        is_told(error)
    else:
        assert isinstance(found, Topology)


@fuzz
@given(st.sampled_from(FILES).flatmap(mutations))
def test_a_file_with_mistakes_is_read_or_refused_by_line(text: str) -> None:
    loaded(text)


@fuzz
@given(st.binary(max_size=80) | st.text(max_size=80))
def test_a_file_of_noise_is_refused_by_line(noise: str | bytes) -> None:
    loaded(noise)


@pytest.mark.parametrize(
    "text",
    [
        "a: &a [*a]",
        "a: &a {b: *a}",
        "&a [&b [*a, *b]]",
        "<<: *x",
        "? [a]\n: b",
        "--- a\n--- b",
        "a: !!binary x",
        "%YAML 9.9\n---",
    ],
)
def test_what_yaml_can_do_beyond_data_is_refused_by_line(text: str) -> None:
    with pytest.raises(TopologyInvalid):
        load(text)


def test_aliases_that_multiply_do_not_multiply_here() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [" + ", ".join([f"*a{n - 1}"] * 9) + "]" for n in range(1, 30)]
    with pytest.raises(TopologyInvalid):
        load("\n".join(lines))


@fuzz
@given(st.lists(WORDS, max_size=12).map(" ".join) | st.text(max_size=30), json_values)
def test_a_condition_is_parsed_and_holds_or_not_or_is_refused(text: str, payload: Any) -> None:
    try:
        condition = parse(text, ["order"])
    except InvalidInput as error:
        refused(error)
        return
    assert condition.holds({"order": payload}) in (True, False)


@fuzz
@given(st.text(max_size=20), json_values)
def test_a_path_is_parsed_and_followed_or_refused(text: str, payload: Any) -> None:
    try:
        path = parse_path(text)
    except InvalidInput as error:
        refused(error)
        return
    path.value(payload)


@fuzz
@given(AMOUNTS)
def test_an_amount_is_read_or_refused(text: str) -> None:
    for read in (duration_ms, size_bytes, usd_micros, decimal(0, 1)):
        try:
            read(text)
        except InvalidInput as error:
            refused(error)
