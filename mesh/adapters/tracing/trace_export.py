"""Export of this process's spans, as the standard variables of OpenTelemetry say (`OTEL_…`).

The SDK reads sampler, limits, resource, batches (`OTEL_BSP_…`) and the exporter's address itself. Exporters are found
by the SDK's own entry points, so `OTEL_TRACES_EXPORTER` may name any installed one. Without `OTEL_TRACES_EXPORTER` and
without an OTLP endpoint nothing is exported, and the SDK is not imported.
"""

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, Final

from opentelemetry import trace

from mesh.adapters.diagnostics import Traces
from mesh.adapters.distribution import version
from mesh.adapters.tracing.kept_spans import KeptSpans
from mesh.adapters.tracing.span_factory import KEEP
from mesh.adapters.tracing.span_ids import SpanIds, trace_id_of
from mesh.core.errors import ConfigInvalid

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.sampling import Sampler

SHUTDOWN_MS: Final = 2_000
"""Longest wait for a collector at the end of a process."""
PROTOCOLS: Final = {"http/protobuf": "otlp_proto_http", "grpc": "otlp_proto_grpc"}
"""Value of `OTEL_EXPORTER_OTLP_PROTOCOL`, and the SDK's name of its exporter."""
EXTRAS: Final = {"otlp_proto_http": "otel", "otlp_proto_grpc": "otel-grpc"}


def configure(
    service: str, kept: KeptSpans | None = None, environ: Mapping[str, str] | None = None
) -> "TracerProvider | None":
    """Return the provider that the variables ask for, None if they ask for none. The caller shuts it down.

    `kept`: buffer for spans outside the sample. Raises ConfigInvalid when an exporter is asked for and not installed,
    or a variable makes no sense.
    """
    environ = os.environ if environ is None else environ
    exporters = [_load(name) for name in exporter_names("TRACES", environ)]
    if not exporters:
        return None
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    try:
        provider = new_provider(service, kept)
        for exporter in exporters:
            provider.add_span_processor(BatchSpanProcessor(exporter()))
    except ValueError as error:  # the SDK's own reading of its variables
        raise ConfigInvalid(
            f"tracing cannot be set up: {error}", where="OTEL_…", remedy="Fix or unset the variable of OpenTelemetry"
        ) from error
    return provider


def new_provider(service: str, kept: KeptSpans | None = None, sampler: "Sampler | None" = None) -> "TracerProvider":
    """Return a provider without exporters. Sampler and resource: those of the variables by default."""
    from opentelemetry.sdk.resources import OTELResourceDetector, Resource
    from opentelemetry.sdk.trace import TracerProvider

    ours = {"service.name": service, "service.version": version()}
    resource = Resource.create({**ours, **OTELResourceDetector().detect().attributes})
    provider = TracerProvider(sampler=sampler, resource=resource, id_generator=_sdk_ids(), shutdown_on_exit=False)
    provider.sampler = _keeping_sampler(provider.sampler, kept)
    return provider


@asynccontextmanager
async def exported(service: str, kept: KeptSpans | None = None) -> AsyncIterator[None]:
    """Export the spans of this process as the standard variables say (see `configure`), the last ones at the end.

    Does nothing if the program has set up a provider of its own. The end of the block takes two seconds at most, even
    without a collector. Raises ConfigInvalid.
    """
    own = not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider | trace.NoOpTracerProvider)
    provider = None if own else configure(service, kept)
    if provider is None:
        yield
        return
    trace.set_tracer_provider(provider)
    Traces.id_of_run = trace_id_of
    try:
        yield
    finally:
        Traces.id_of_run = None
        # In a thread, since the SDK exceeds its own deadline while it retries. The loop polls the thread, so that it
        # can handle a second Ctrl-C meanwhile.
        last = threading.Thread(target=provider.shutdown, name="last spans", daemon=True)
        last.start()
        with suppress(TimeoutError):
            async with asyncio.timeout(SHUTDOWN_MS / 1000):
                while last.is_alive():  # noqa: ASYNC110  # a thread sets no event
                    await asyncio.sleep(0.02)


def exporter_names(signal: str, environ: Mapping[str, str]) -> list[str]:
    """Return the SDK's names of the exporters that the variables ask for. Raises ConfigInvalid for a wrong protocol."""
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return []
    asked = environ.get(f"OTEL_{signal}_EXPORTER", "").strip()
    if not asked:
        endpoint = environ.get(f"OTEL_EXPORTER_OTLP_{signal}_ENDPOINT") or environ.get("OTEL_EXPORTER_OTLP_ENDPOINT")
        asked = "otlp" if endpoint else "none"
    names = [name.strip() for name in asked.split(",") if name.strip() and name.strip().lower() != "none"]
    return [_otlp(signal, environ) if name == "otlp" else name for name in names]


def _otlp(signal: str, environ: Mapping[str, str]) -> str:
    for variable in (f"OTEL_EXPORTER_OTLP_{signal}_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"):
        if protocol := environ.get(variable, "").strip():
            if protocol in PROTOCOLS:
                return PROTOCOLS[protocol]
            raise ConfigInvalid(
                "the protocol is not supported",
                where=variable,
                expected=" or ".join(PROTOCOLS),
                got=protocol,
                remedy="Correct or unset the variable",
            )
    return PROTOCOLS["http/protobuf"]


def _load(name: str) -> Any:
    """Return the class of a span exporter by its entry point. Raises ConfigInvalid if it is not installed."""
    found = [point for point in entry_points(group="opentelemetry_traces_exporter") if point.name == name]
    try:
        return found[0].load()
    except (IndexError, ImportError) as error:
        extra = EXTRAS.get(name)
        remedy = "Install the package that has it, or correct the variable"
        if extra is not None:
            remedy = f"pip install 'agent-mesh[{extra}]', or unset the variable"
        installed = sorted({point.name for point in entry_points(group="opentelemetry_traces_exporter")})
        raise ConfigInvalid(
            f"the exporter {name!r} is not installed",
            where="OTEL_TRACES_EXPORTER, OTEL_EXPORTER_OTLP_ENDPOINT",
            expected=", ".join(installed) or "an installed exporter",
            got=name,
            remedy=remedy,
        ) from error


def _sdk_ids() -> Any:
    from opentelemetry.sdk.trace.id_generator import IdGenerator

    IdGenerator.register(SpanIds)
    return SpanIds()


def _keeping_sampler(sampler: Any, kept: KeptSpans | None) -> Any:
    from opentelemetry.context import get_value
    from opentelemetry.sdk.trace.sampling import Decision, ParentBased, Sampler, SamplingResult

    class KeepingSampler(Sampler):
        """The sampler of the variables, but for spans that are kept because they ended badly."""

        def __init__(self) -> None:
            self.kept, self.follows_parent = kept, isinstance(sampler, ParentBased)

        def should_sample(self, parent_context: Any, trace_id: int, name: str, *args: Any, **named: Any) -> Any:
            found = sampler.should_sample(parent_context, trace_id, name, *args, **named)
            if kept is None or found.decision.is_sampled() or not get_value(KEEP, parent_context):
                return found
            attributes = args[1] if len(args) > 1 else named.get("attributes")
            return SamplingResult(Decision.RECORD_AND_SAMPLE, attributes, found.trace_state)

        def get_description(self) -> str:
            return f"Keeping{{{sampler.get_description()}}}"

    return KeepingSampler()
