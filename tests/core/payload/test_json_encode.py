"""Values as JSON: values that serializers would write as `null` are refused."""

import math
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal

import orjson
import pytest
from pydantic import BaseModel, ConfigDict

from mesh.core.payload.json_encode import encode
from mesh.core.protocol.json_check import Flaw


class Amount(BaseModel):
    usd: float | None = None
    notes: dict[str, Any] = {}


class Spelled(BaseModel):
    model_config = ConfigDict(ser_json_inf_nan="constants")
    usd: float


class Worded(BaseModel):
    model_config = ConfigDict(ser_json_inf_nan="strings")
    usd: float
    kind: Literal["null"] = "null"


@dataclass
class Plain:
    usd: float


@pytest.mark.parametrize(
    "value",
    [
        {"a": None},
        [1, 2.5, "NaN", None],
        Amount(),
        Amount(usd=1.5, notes={"null": ["null", "NaN", "Infinity"]}),
        Plain(2.0),
        None,
    ],
)
def test_what_json_can_say_is_said(value: Any) -> None:
    data = encode(value)
    assert isinstance(data, bytes)
    expected = (
        value.model_dump() if isinstance(value, BaseModel) else vars(value) if isinstance(value, Plain) else value
    )
    assert orjson.loads(data) == expected


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(
    "wrap",
    [
        lambda n: n,
        lambda n: {"a": [{"b": (1, n)}]},
        lambda n: Amount(usd=n),
        lambda n: Amount(notes={"deep": [n]}),
        lambda n: Plain(n),
        lambda n: Spelled(usd=n),
    ],
)
def test_nan_and_infinity_are_refused_and_never_become_null(wrap: Any, number: float) -> None:
    flaw = encode(wrap(number))
    assert isinstance(flaw, Flaw)
    assert flaw.code == "bad_number"


def test_a_model_may_say_nan_as_a_text() -> None:
    assert encode(Worded(usd=1.0)) == b'{"usd":1.0,"kind":"null"}'
    assert encode(Amount(notes={"x": Decimal("NaN")})) == b'{"usd":null,"notes":{"x":"NaN"}}'


@pytest.mark.parametrize("value", [object(), {1, 2}, {"a": object()}])
def test_what_json_cannot_say_is_unparseable(value: Any) -> None:
    flaw = encode(value)
    assert isinstance(flaw, Flaw)
    assert flaw.code == "unparseable"


def test_what_contains_itself_is_unparseable() -> None:
    value: list[Any] = []
    value.append(value)
    flaw = encode(value)
    assert isinstance(flaw, Flaw)
    assert flaw.code == "unparseable"
