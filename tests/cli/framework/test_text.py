"""Words and numbers for people; and that nothing can command the terminal."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.cli.framework.text import ago, clock, counted, escaped_json, moment, percentile, seconds, span, took, visible
from mesh.core.errors import InvalidInput

COMMANDS = "\x00\x07\x08\t\n\r\x1b\x7f\x80\x9b\x9f\u061c\u200e\u202a\u202e\u2066\u2069\u2028\ufeff\U000e0041"


@given(st.text(st.characters() | st.sampled_from(COMMANDS)))
def test_visible_text_is_one_line_of_printable_characters(text: str) -> None:
    shown = visible(text, chars_max=10_000)
    assert not any(character in COMMANDS for character in shown)
    assert len(shown.splitlines()) <= 1


@given(st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from(COMMANDS)))
def test_escaped_json_means_the_same(text: str) -> None:
    escaped = escaped_json(json.dumps({"text": text}, ensure_ascii=False))
    assert json.loads(escaped) == {"text": text}
    assert not any(character in COMMANDS for character in escaped)


def test_control_characters_are_named_and_plain_text_stays() -> None:
    assert visible("a\x1b[31m\tb\n\u202ec") == r"a\x1b[31m\tb\n\u202ec"
    assert visible("Zoë 💡 [bold] 👩‍🚀") == "Zoë 💡 [bold] 👩‍🚀"


def test_long_text_is_cut_and_says_so() -> None:
    assert visible("x" * 1_048_576, 10) == "xxxxxxxxx… (1,048,576 characters)"
    assert visible("x" * 10, 10) == "x" * 10


@pytest.mark.parametrize(
    ("ms", "text"),
    [
        (0, "0 ms"),
        (999, "999 ms"),
        (1_240, "1.24 s"),
        (59_994, "59.99 s"),
        (125_000, "2 m 05 s"),
        (11_520_000, "3 h 12 m"),
    ],
)
def test_durations(ms: int, text: str) -> None:
    assert took(ms) == text


@pytest.mark.parametrize(
    ("ms", "text"), [(200, "200 ms"), (1_500, "1500 ms"), (10_000, "10 s"), (300_000, "5 m"), (7_200_000, "2 h")]
)
def test_limits_are_shown_as_one_would_write_them(ms: int, text: str) -> None:
    assert span(ms) == text


@pytest.mark.parametrize(
    ("seconds_ago", "text"),
    [(-5, "0 s ago"), (9, "9 s ago"), (200, "3 m ago"), (200_000, "2 d ago")],
)
def test_ages(seconds_ago: int, text: str) -> None:
    assert ago(1_000_000_000 - seconds_ago * 1_000, 1_000_000_000) == text


def test_moments_are_local_time(monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    monkeypatch.setenv("TZ", "Asia/Kolkata")
    time.tzset()
    try:
        assert clock(1_795_176_001_114) == "17:30:01.114"
        assert moment(1_795_176_001_114) == "2026-11-20 17:30:01"
    finally:
        monkeypatch.undo()
        time.tzset()


def test_counts() -> None:
    assert (counted(1, "run"), counted(1_240, "run"), counted(0, "run")) == ("1 run", "1,240 runs", "0 runs")


def test_percentiles_are_values_that_were_measured() -> None:
    values = [float(n) for n in range(1, 101)]
    assert (percentile(values, 0.5), percentile(values, 0.99), percentile(values, 1.0)) == (50, 99, 100)
    assert (percentile([7.0], 0.5), percentile([7.0], 0.99), percentile([], 0.5)) == (7, 7, 0)


def test_a_duration_that_is_invalid_names_its_option() -> None:
    assert seconds("--since", "90s") == 90
    with pytest.raises(InvalidInput, match=r"^--since: ") as refused:
        seconds("--since", "soon")
    assert refused.value.exit_code == 2
