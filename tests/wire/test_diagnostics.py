"""What operators read."""

import logging

import pytest

from mesh.wire.diagnostics import diagnostics


def test_fields_are_in_the_message_and_apart(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="mesh.test"):
        diagnostics("test").info("partition is live", partition=3, note="100% sure")
    (record,) = caplog.records
    assert record.name == "mesh.test"
    assert record.getMessage() == "partition is live partition=3 note=100% sure"
    assert record.__dict__["fields"] == {"partition": 3, "note": "100% sure"}


def test_unwanted_levels_cost_no_record(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="mesh.test"):
        diagnostics("test").info("partition is live", partition=3)
    assert caplog.records == []


def test_secrets_are_masked_in_the_sentence_and_in_the_fields(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="mesh.test"):
        diagnostics("test").warning("cannot reach redis://u:pw1@h", sasl_password="pw2", why=["token=pw3"])
    (record,) = caplog.records
    assert record.getMessage() == "cannot reach redis://u:***@h sasl_password=*** why=['token=***']"
    assert record.__dict__["fields"] == {"sasl_password": "***", "why": ["token=***"]}
