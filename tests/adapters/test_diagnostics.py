"""Diagnostics for operators."""

import asyncio
import logging
from contextvars import copy_context
from dataclasses import replace

import pytest
from structlog.contextvars import merge_contextvars

from mesh.adapters.diagnostics import (
    LINES_MAX,
    LimitedLog,
    Traces,
    agent_context,
    call_ids,
    diagnostics,
    enter_call,
    trace_field,
)
from mesh.core.protocol.event import DUE, TASK, Event


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


async def test_lines_of_one_kind_are_limited_and_the_rest_is_counted(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mesh.adapters.diagnostics.WINDOW_S", 0.05)
    log = LimitedLog("test")
    for n in range(417):
        log.warning("an attempt failed", ("a", "exception"), agent="a", code="exception", n=n)
    log.warning("an attempt failed", ("b", "exception"), agent="b")
    said = [record.getMessage() for record in caplog.records]
    assert said == [
        *(f"an attempt failed agent=a code=exception n={n}" for n in range(LINES_MAX)),
        "an attempt failed agent=b",
    ]
    async with asyncio.timeout(10):
        while len(caplog.records) == len(said):  # noqa: ASYNC110  # a log line sets no event
            await asyncio.sleep(0.005)
    assert caplog.records[-1].getMessage() == (
        "an attempt failed: … and 412 more of the same in 0.05 s count=412 agent=a code=exception"
    )
    log.warning("an attempt failed", ("a", "exception"), agent="a", n=417)
    assert caplog.records[-1].getMessage() == "an attempt failed agent=a n=417"


async def test_what_was_counted_is_said_at_the_end(caplog: pytest.LogCaptureFixture) -> None:
    log = LimitedLog("test")
    for _ in range(LINES_MAX + 2):
        log.warning("an attempt failed", ())
    log.flush()
    assert caplog.records[-1].getMessage() == "an attempt failed: … and 2 more of the same in 10 s count=2"
    log.flush()
    assert len(caplog.records) == LINES_MAX + 1


def test_ids_of_a_call_stand_in_its_context_only() -> None:
    copy_context().run(enter_call, "r", "t", "a")
    assert call_ids() == {}
    inside = copy_context()
    inside.run(enter_call, "r", "t", "a")
    assert inside.run(call_ids) == {"run": "r", "task": "t", "agent": "a"}
    assert inside.run(merge_contextvars, None, "info", {"event": "x"}) == {
        "event": "x",
        "run": "r",
        "task": "t",
        "agent": "a",
    }


def test_the_trace_of_a_call_stands_beside_its_ids_and_does_not_outlast_it() -> None:
    inside = copy_context()
    inside.run(enter_call, "r", "t", "a", "0af7")
    assert inside.run(call_ids)["trace"] == "0af7"
    inside.run(enter_call, "r2", "t2", "a")
    assert "trace" not in inside.run(call_ids)


def test_a_trace_is_that_of_the_headers_else_of_the_run_where_spans_are_exported(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    traced = Event("t1:1", "/mesh/t", "ask", TASK, "r1", b"", traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad-01")
    plain, timer = replace(traced, traceparent=""), replace(traced, traceparent="", kind=DUE)
    assert trace_field(traced) == {"trace": "0af7651916cd43dd8448eb211c80319c"}
    assert trace_field(plain) == {}
    monkeypatch.setattr(Traces, "id_of_run", lambda run_id: f"trace of {run_id}")
    assert trace_field(plain) == {"trace": "trace of r1"}
    assert trace_field(timer) == {}  # its run may have come with another


def test_a_call_of_another_agent_takes_the_place_of_the_one_in_the_context() -> None:
    inside = agent_context("a")
    assert inside.run(call_ids) == {"agent": "a"}
    assert call_ids() == {}
    inside.run(enter_call, "r", "t", "a")
    inside.run(enter_call, "r2", "t2", "b")
    assert inside.run(call_ids) == {"run": "r2", "task": "t2", "agent": "b"}
