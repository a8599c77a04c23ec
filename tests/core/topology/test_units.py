"""Values with units."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mesh.core.errors import InvalidInput
from mesh.core.topology.units import (
    DURATION_MS_MAX,
    SIZE_BYTES_MAX,
    USD_MAX,
    decimal,
    duration_ms,
    flag,
    size_bytes,
    usd_micros,
    whole,
)

PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""A busy machine is no mistake of ours."""

READERS: list[Callable[[str], Any]] = [duration_ms, size_bytes, usd_micros, whole(1, 10), decimal(0, 1), flag]


@pytest.mark.parametrize(
    ("read", "text", "value"),
    [
        (duration_ms, "500ms", 500),
        (duration_ms, "2s", 2_000),
        (duration_ms, "1.5s", 1_500),
        (duration_ms, "1m", 60_000),
        (duration_ms, "1h", 3_600_000),
        (duration_ms, "1d", 86_400_000),
        (duration_ms, "0s", 0),
        (duration_ms, "1 s", 1_000),
        (duration_ms, "366d", DURATION_MS_MAX),
        (size_bytes, "512B", 512),
        (size_bytes, "64KB", 65_536),
        (size_bytes, "1MB", 1_048_576),
        (size_bytes, "1MiB", 1_048_576),
        (size_bytes, "0.5KB", 512),
        (size_bytes, "1GB", SIZE_BYTES_MAX),
        (usd_micros, "0.50", 500_000),
        (usd_micros, "0.000001", 1),
        (usd_micros, "0", 0),
        (usd_micros, "12", 12_000_000),
        (usd_micros, str(USD_MAX), USD_MAX * 1_000_000),
        (whole(1, 100_000), "20_000", 20_000),
        (whole(-5, 5), "-5", -5),
        (decimal(1, 100), "1.5", 1.5),
        (decimal(0, 1), "1", 1.0),
        (flag, "true", True),
        (flag, "false", False),
    ],
)
def test_a_value_is_read_exactly(read: Callable[[str], Any], text: str, value: Any) -> None:
    assert read(text) == value
    assert type(read(text)) is type(value)


@pytest.mark.parametrize(
    ("read", "text", "what", "remedy"),
    [
        (duration_ms, "60", "invalid unit", "write 60s"),
        (duration_ms, "2sec", "invalid unit", "Write 2s"),
        (duration_ms, "5 minutes", "invalid unit", "Write 5m"),
        (duration_ms, "10MS", "invalid unit", "Write 10ms"),
        (duration_ms, "2KB", "invalid unit", "Write 2s"),
        (duration_ms, "0.5ms", "invalid value", "whole number of ms"),
        (duration_ms, "-1s", "invalid value", "like 2s"),
        (duration_ms, "soon", "invalid value", "like 2s"),
        (duration_ms, "367d", "value too large", "366d"),
        (duration_ms, "1:30", "invalid value", "like 2s"),
        (size_bytes, "64", "invalid unit", "write 64KB"),
        (size_bytes, "64k", "invalid unit", "Write 64KB"),
        (size_bytes, "2mb", "invalid unit", "Write 2MB"),
        (size_bytes, "0.3B", "invalid value", "whole number of B"),
        (size_bytes, "2GB", "value too large", "1GB"),
        (usd_micros, "$0.50", "invalid value", "Write 0.50"),
        (usd_micros, "5 USD", "invalid value", "Write 5"),
        (usd_micros, "1e3", "invalid value", "plain decimal"),
        (usd_micros, "0.0000001", "invalid value", "six decimals"),
        (usd_micros, "-1", "invalid value", "range"),
        (usd_micros, str(USD_MAX + 1), "invalid value", "range"),
        (whole(1, 10), "0", "invalid value", "1 or more"),
        (whole(1, 10), "11", "invalid value", "10 or less"),
        (whole(1, 10), "1.5", "invalid value", "1 or more"),
        (whole(1, 10), "5s", "invalid value", "Write 5"),
        (whole(1, 10), "9" * 30, "invalid value", "Write"),
        (decimal(0, 1), "1.1", "invalid value", "1 or less"),
        (decimal(0, 1), "50%", "invalid value", "like 0.5"),
        (flag, "yes", "invalid value", "true or false"),
        (flag, "True", "invalid value", "true or false"),
    ],
)
def test_a_wrong_value_is_refused_with_advice(read: Callable[[str], Any], text: str, what: str, remedy: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        read(text)
    error = caught.value
    assert (error.what, error.code) == (what, "bad_value")
    assert remedy in error.remedy, error.remedy
    assert error.expected
    assert text[:30] in error.got


@PATIENT
@given(st.sampled_from(READERS), st.text(max_size=30) | st.text("0123456789.-_eE smhdKMGB$", max_size=25))
def test_any_text_is_a_value_or_a_typed_refusal(read: Callable[[str], Any], text: str) -> None:
    try:
        assert read(text) >= 0
    except InvalidInput:
        return


@PATIENT
@given(st.integers(0, DURATION_MS_MAX))
def test_milliseconds_read_back(ms: int) -> None:
    assert duration_ms(f"{ms}ms") == ms
