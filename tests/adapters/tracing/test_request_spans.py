from dataclasses import replace

import pytest
from opentelemetry import trace
from opentelemetry.trace import SpanKind, StatusCode

from mesh.adapters.tracing import request_spans
from mesh.adapters.tracing.request_spans import published
from tests.adapters.tracing.kit import PARENT, REQUEST, TRACE_ID, UNSAMPLED, Traced, attributes_of, ids_of, sampling


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> Traced:
    return provided(monkeypatch, Traced())


def provided(monkeypatch: pytest.MonkeyPatch, traced: Traced) -> Traced:
    """Let the program have this provider."""
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: traced.provider)
    request_spans._factory.cache_clear()
    return traced


def test_requests_go_on_from_spans_of_their_own(traced: Traced) -> None:
    requests = [replace(REQUEST, traceparent=PARENT), replace(REQUEST, id="q2")]
    with published("kafka://b", requests, "mesh.inbox"):
        assert traced.spans == []
    first, second = traced.spans
    assert (first.name, first.kind, ids_of(first)[::2]) == (
        "send mesh.inbox",
        SpanKind.PRODUCER,
        (TRACE_ID, "b7ad6b7169203331"),
    )
    assert [request.traceparent[36:52] for request in requests] == [ids_of(first)[1], ids_of(second)[1]]
    assert attributes_of(first)["messaging.message.id"] == "q1"


def test_an_error_marks_them(traced: Traced) -> None:
    with pytest.raises(ConnectionError), published("kafka://b", [replace(REQUEST)], "mesh.inbox"):
        raise ConnectionError("secret")
    assert (traced.one.status.status_code, attributes_of(traced.one)["error.type"]) == (
        StatusCode.ERROR,
        "builtins.ConnectionError",
    )
    assert "secret" not in str(traced.one.to_json())


@pytest.mark.parametrize("header", ["", UNSAMPLED])
def test_a_request_outside_the_sample_keeps_its_headers(monkeypatch: pytest.MonkeyPatch, header: str) -> None:
    traced = provided(monkeypatch, Traced(sampler=sampling(0)))
    request = replace(REQUEST, traceparent=header)
    with published("kafka://b", [request], "mesh.inbox"):
        pass
    assert (request.traceparent, traced.spans) == (header, [])


def test_without_a_provider_requests_stay_as_they_are() -> None:
    request_spans._factory.cache_clear()
    request = replace(REQUEST, traceparent=PARENT)
    with published("kafka://b", [request], "mesh.inbox"):
        pass
    assert request.traceparent == PARENT
