"""Context drift, computed by hand for small payloads."""

from math import isclose, sqrt

from hypothesis import given
from hypothesis import strategies as st

from mesh.core.metrics.context_drift import WORDS_MAX, drift_of, vector_of


def test_equal_words_have_no_drift_whatever_the_fields_are_called() -> None:
    assert drift_of(vector_of(b'{"a":"ship the box"}'), vector_of(b'{"b":["Ship, the Box!"]}')) == 0


def test_other_words_have_full_drift() -> None:
    assert drift_of(vector_of(b'{"a":"red"}'), vector_of(b'{"a":"blue"}')) == 1


def test_drift_is_the_cosine_distance_of_n_grams() -> None:
    # red, box, red box | red, lid, red lid: one of three in common
    found = drift_of(vector_of(b'["red box"]'), vector_of(b'["red lid"]'))
    assert found is not None
    assert isclose(found, 1 - 1 / sqrt(3 * 3))


def test_a_payload_without_words_has_no_drift() -> None:
    for data in (b"{}", b"[]", b"not json", b"null", b"true", b'{"a":null}'):
        assert drift_of(vector_of(data), vector_of(b'{"a":"x"}')) is None


def test_long_payloads_are_bounded() -> None:
    words = " ".join(f"w{n}" for n in range(10_000))
    assert len(vector_of(f'["{words}"]'.encode())) <= 2 * 2 * WORDS_MAX
    assert vector_of(b"[" * 300 + b'"x"' + b"]" * 300) == b""  # deeper than values are looked at


@given(st.text(), st.text())
def test_it_is_symmetric_and_between_0_and_1(first: str, second: str) -> None:
    import orjson

    one, other = (vector_of(orjson.dumps([text])) for text in (first, second))
    found = drift_of(one, other)
    assert found == drift_of(other, one)
    assert found is None or -1e-9 <= found <= 1
