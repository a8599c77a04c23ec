"""What is masked in text for people, what is left alone, and that no text makes masking slow."""

import time

import pytest

from mesh.core.mask import masked


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("password=hunter2, user=x", "hunter2"),
        ('{"password": "hun ter2", "a": 1}', "hun ter2"),
        ("{'api_key': 'abc def'}", "abc def"),
        ("PASSWD : x1y2", "x1y2"),
        ("MESH_TOKEN=t0p", "t0p"),
        ("tokens=abc", "abc"),
        ("Authorization: Bearer abcdefghijk", "abcdefghijk"),
        ("Authorization: Basic dXNlcjpwYXNz", "dXNlcjpwYXNz"),
        ("token: Bearer abcdefghijkl", "abcdefghijkl"),
        ("postgres://u:p4ss@h/db", "p4ss"),
        ("redis://:pw1@h:6379/0", "pw1"),
        ("with sk-abcdefghijklmnop it fails", "sk-abcdefghijklmnop"),
        ("ghp_abcdefghijklmnop", "ghp_abcdefghijklmnop"),
        ("github_pat_11ABCDEFGHIJK", "11ABCDEFGHIJK"),
        ("id AKIAABCDEFGHIJKLMNOP", "AKIAABCDEFGHIJKLMNOP"),
        ("eyJhbGciOiJI.eyJzdWIiOiIx.c2ln", "eyJzdWIiOiIx"),
        ("-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----", "MIIE"),
        ("password: 'cut in the mid", "mid"),
    ],
)
def test_a_secret_does_not_survive(text: str, secret: str) -> None:
    shown = masked(text)
    assert secret not in shown
    assert "***" in shown


@pytest.mark.parametrize(
    "text",
    [
        "a token was refused",
        "budget_tokens: a > b would bring the run to 12 tokens, at most 10",
        "tokens: 5",
        "https://example.org/a:b@c",
        "order.placed does not fit: total: Field required",
        "the basics of bearers",
        "",
    ],
)
def test_ordinary_text_stays_as_it_is(text: str) -> None:
    assert masked(text) == text


def test_what_surrounds_a_secret_stays() -> None:
    assert masked("connect postgres://u:p4ss@h/db as u, password=x; retry") == (
        "connect postgres://u:***@h/db as u, password=***; retry"
    )


@pytest.mark.parametrize(
    "unit",
    ["a", "password=", "token ", "password='", "a://", "a://b:", "bearer ", "sk-", "eyJabcdefgh.", "a.b-c+", " "],
)
def test_no_text_makes_it_slow(unit: str) -> None:
    """Quadratic patterns took 90 seconds for the first of these."""
    text = unit * (100_000 // len(unit))
    start = time.perf_counter()
    masked(text)
    assert time.perf_counter() - start < 1
