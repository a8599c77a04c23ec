"""Values of headers in plain form ⇄ parts of an event."""

import pytest

from mesh.core.protocol.event import FAULT_TEXT_BYTES_MAX, RETRY_AFTER_MS_MAX, STACK_BYTES_MAX, Fault, Usage
from mesh.core.protocol.header_values import (
    duration_of,
    expiry_of,
    extensions_of,
    fault_headers,
    fault_of,
    usage_of,
)

FAULT = Fault("later", "not now", "builtins.ValueError", True, "Traceback …", 5_000)


def test_a_failure_is_read_as_it_was_written() -> None:
    assert fault_of(dict(fault_headers(FAULT))) == FAULT


def test_texts_of_a_failure_are_cut() -> None:
    found = fault_of(dict(fault_headers(Fault("c", "ä" * 9_000, "x" * 9_000, False, "s" * 9_000))))
    assert len(found.message.encode()) <= FAULT_TEXT_BYTES_MAX
    assert len(found.cls) == FAULT_TEXT_BYTES_MAX
    assert len(found.stack) == STACK_BYTES_MAX


@pytest.mark.parametrize(
    ("digits", "ms"),
    [(b"5", 5), (b"-5", 0), (b"x", 0), (b"", 0), (b"9" * 15, RETRY_AFTER_MS_MAX), (b"9" * 16, 0)],
)
def test_a_duration_out_of_range_is_none(digits: bytes, ms: int) -> None:
    assert duration_of(digits) == ms


def test_a_lifetime_counts_from_the_time_of_the_record() -> None:
    assert expiry_of({"mesh-lifetime-ms": b"5000"}, 1_000) == 6_000
    with pytest.raises(ValueError, match="expected 1 to 12 digits"):
        expiry_of({"mesh-lifetime-ms": b"-5"}, 1_000)


def test_extensions_are_those_that_are_listed() -> None:
    headers = {"mesh-extensions": b"tenant,region", "ce_tenant": b"a", "ce_region": b"eu", "ce_other": b"x"}
    assert extensions_of(headers) == ("tenant", "a", "region", "eu")
    del headers["ce_region"]
    with pytest.raises(KeyError, match="ce_region"):
        extensions_of(headers)


def test_a_usage_out_of_range_is_invalid() -> None:
    assert usage_of(b"12", b"3") == Usage(12, 3)
    assert usage_of(b"-1", b"3") is None
    assert usage_of(b"invalid", b"3") is None
