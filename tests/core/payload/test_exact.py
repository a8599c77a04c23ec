"""Values compared with their JSON: each known loss is refused with its path; sets are sorted."""

import re
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Annotated, Any

import pytest
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PlainSerializer,
    RootModel,
    Secret,
    SecretBytes,
    SecretStr,
    computed_field,
    field_serializer,
)
from pydantic.dataclasses import dataclass

from mesh.core.payload.exact import find_unwritable, needs_comparison
from mesh.core.payload.json_encode import encode
from mesh.core.protocol.json_check import Flaw


class Inner(BaseModel):
    value: Any


class Outer(BaseModel):
    inner: list[Inner] = Field(alias="in")


class Keys(BaseModel):
    table: dict[int | str, int]


class Rounded(BaseModel):
    price: Annotated[Decimal, PlainSerializer(float, return_type=float)]


class Seconds(BaseModel):
    model_config = ConfigDict(ser_json_timedelta="float")
    took: timedelta


class Millis(BaseModel):
    model_config = ConfigDict(ser_json_temporal="seconds")
    at: datetime


class Key(BaseModel):
    api_key: SecretStr


class KeyBytes(BaseModel):
    api_key: SecretBytes


class KeyNumber(BaseModel):
    api_key: Secret[int]


class Keyring(RootModel[dict[str, SecretStr]]):
    pass


class Computed(BaseModel):
    @computed_field  # type: ignore[prop-decorator]
    @property
    def token(self) -> SecretStr:
        return SecretStr("abc")


@dataclass
class KeyData:
    api_key: SecretStr


class Shape(BaseModel):
    shape: re.Pattern[str]


class Raw(BaseModel):
    raw: bytes


def wrap(value: Any) -> Outer:
    return Outer.model_validate({"in": [{"value": 1}, {"value": value}]})


@pytest.mark.parametrize(
    ("value", "code", "path", "fix"),
    [
        (Key(api_key=SecretStr("k-1")), "bad_value", "api_key", "field_serializer"),
        (KeyBytes(api_key=SecretBytes(b"k-1")), "bad_value", "api_key", "field_serializer"),
        (KeyNumber(api_key=Secret[int](5)), "bad_value", "api_key", "field_serializer"),
        (KeyData(api_key=SecretStr("k-1")), "bad_value", "api_key", "field_serializer"),
        (Keyring({"a": SecretStr("k-1")}), "bad_value", "a", "field_serializer"),
        (Computed(), "bad_value", "token", "field_serializer"),
        (wrap(SecretStr("k-1")), "bad_value", "inner.1.value", "field_serializer"),
        ({"keys": [Key(api_key=SecretStr("k-1"))]}, "bad_value", "api_key", "field_serializer"),
        (wrap(2**64), "bad_number", "inner.1.value", "text"),
        (wrap(-(2**63) - 1), "bad_number", "inner.1.value", "text"),
        (wrap([float("nan")]), "bad_number", "inner.1.value.0", "None"),
        ({"a": [2**64]}, "bad_number", "a.0", "text"),
        ({"a": {"b": Decimal(1)}}, "unparseable", "a.b", "text"),
        ({"a": b"x"}, "unparseable", "a", "base64"),
        ({"a": {1}}, "unparseable", "a", "sorted"),
        ({"a": {5: 1}}, "unparseable", "a", "text"),
        (Raw(raw=b"\xff"), "unparseable", "raw", "ser_json_bytes"),
        (wrap("\ud800"), "unparseable", "inner.1.value", "decode"),
        (Keys(table={1: 1, "1": 2}), "duplicate_key", "table", "apart"),
        (Rounded(price=Decimal("0.12345678901234567890")), "bad_number", "price", "text"),
        (Seconds(took=timedelta(days=99_999_999, microseconds=1)), "bad_number", "took", "ISO 8601"),
        (Shape(shape=re.compile("a", re.IGNORECASE)), "bad_value", "shape", "(?i)"),
    ],
)
def test_what_json_does_not_carry_is_refused_with_its_path_and_the_fix(
    value: Any, code: str, path: str, fix: str
) -> None:
    flaw = encode(value)
    assert isinstance(flaw, Flaw)
    assert flaw.code == code
    assert f"at {path!r}" in flaw.message
    assert fix in flaw.message
    assert "k-1" not in flaw.message


class Open(Key):
    @field_serializer("api_key")
    def reveal(self, key: SecretStr) -> str:
        return key.get_secret_value()


@pytest.mark.parametrize(
    ("value", "data"),
    [
        (Open(api_key=SecretStr("k-1")), b'{"api_key":"k-1"}'),
        (Key(api_key=SecretStr("")), b'{"api_key":""}'),
        (Key(api_key=SecretStr("**********")), b'{"api_key":"**********"}'),
        (wrap("**********"), b'{"in":[{"value":1},{"value":"**********"}]}'),
        (wrap(2**64 - 1), b'{"in":[{"value":1},{"value":18446744073709551615}]}'),
        (wrap("18446744073709551616"), b'{"in":[{"value":1},{"value":"18446744073709551616"}]}'),
        (Rounded(price=Decimal("0.1")), b'{"price":0.1}'),
        (Seconds(took=timedelta(seconds=1.5)), b'{"took":1.5}'),
        (Millis(at=datetime(2026, 1, 1, tzinfo=UTC)), b'{"at":1767225600.0}'),
        (Shape(shape=re.compile("a")), b'{"shape":"a"}'),
        ({"a": [Keys(table={1: 1})]}, b'{"a":[{"table":{"1":1}}]}'),
        (wrap({"b", "a"}), b'{"in":[{"value":1},{"value":["a","b"]}]}'),
        (wrap({1.5, 1e16}), b'{"in":[{"value":1},{"value":[1.5,1e+16]}]}'),
    ],
)
def test_what_is_carried_is_written_as_declared(value: Any, data: bytes) -> None:
    assert encode(value) == data


SETS = """
from pydantic import BaseModel
from mesh.core.payload.json_encode import encode
class Tagged(BaseModel):
    tags: set[str]; groups: list[frozenset[str]]; more: object
words = {f"w{n}" for n in range(50)}
print(encode(Tagged(tags=words, groups=[words], more={"a": words})).decode())
"""


def test_sets_are_written_alike_in_every_process() -> None:
    written = {
        subprocess.run(
            [sys.executable, "-c", SETS], env={"PYTHONHASHSEED": str(seed)}, capture_output=True, text=True, check=True
        ).stdout
        for seed in (1, 2)
    }
    assert len(written) == 1


def test_what_can_be_written_has_no_flaw() -> None:
    assert find_unwritable({"a": [1, None, "x", 1.5]}, strictly=True) is None


def test_what_holds_itself_is_named() -> None:
    value: dict[str, Any] = {"a": []}
    value["a"].append(value)
    flaw = find_unwritable(value)
    assert flaw is not None
    assert "holds itself at 'a.0'" in flaw.message


def test_a_value_nested_as_deep_as_serializers_write_is_compared() -> None:
    value: Any = float("nan")
    for _ in range(200):
        value = [value]
    flaw = encode(wrap(value))
    assert isinstance(flaw, Flaw)
    assert flaw.code == "bad_number"


@pytest.mark.parametrize("value", [{1}, float("inf"), 2**64, SecretStr("x"), {1: 2}, Decimal(1), object()])
def test_what_may_not_be_carried_is_doubtful_wherever_it_stands(value: Any) -> None:
    for wrapped in (value, [value], {"a": ({"b": value},)}, wrap(value), wrap({"a": [value]})):
        assert needs_comparison(wrapped)


def test_json_values_models_and_times_are_not_doubtful() -> None:
    at = datetime(2026, 1, 1, tzinfo=UTC)
    assert not needs_comparison(
        [None, True, 1, 1.5, "x", {"a": [wrap({"b": at})]}, (at.date(), at.time(), timedelta())]
    )
