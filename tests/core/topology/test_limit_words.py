"""Limits given as words: those of topics.yaml, with its units."""

from dataclasses import fields

import pytest

from mesh.core.errors import InvalidInput
from mesh.core.topology.digest import digest_of
from mesh.core.topology.limit_words import LIMIT_FIELDS, read_limits, with_limits
from mesh.core.topology.loader import LIMIT_WORDS, MONEY_WORDS
from mesh.core.topology.model import Limits
from tests.builders import topology


def test_every_limit_of_topics_yaml_has_its_word() -> None:
    words = {word for word in LIMIT_WORDS if word != "budget"} | {f"budget.{word}" for word in MONEY_WORDS}
    assert set(LIMIT_FIELDS) == words
    assert {field for field, _ in LIMIT_FIELDS.values()} == {field.name for field in fields(Limits)}


def test_values_have_the_units_of_topics_yaml() -> None:
    texts = ["depth_max=3", "deadline=2m", "payload_max=1KiB", "budget.usd=0.50", "budget.tokens=none"]
    assert read_limits("--limit", texts) == {
        "depth_max": 3,
        "deadline_ms": 120_000,
        "payload_bytes_max": 1_024,
        "usd_micros_max": 500_000,
        "tokens_max": None,
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("depth=3", r"--limit: 'depth=3' sets no limit; expected WORD=VALUE.*Did you mean depth_max\?"),
        ("depth_max", r"'depth_max' sets no limit"),
        ("depth_max=many", r"--limit depth_max: .*a whole number from 1 to 1000"),
        ("depth_max=none", r"--limit depth_max: "),
        ("deadline=0s", r"--limit deadline: "),
    ],
)
def test_a_wrong_limit_names_word_and_form(text: str, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        read_limits("--limit", [text])


def test_a_topology_with_other_limits_has_another_digest() -> None:
    mesh = topology(price="ask -> priced")
    other = with_limits(mesh, {"depth_max": 3})
    assert (other.limits.depth_max, other.rows) == (3, mesh.rows)
    assert other.digest == digest_of(other)
    assert with_limits(other, {"depth_max": 3}) is other
