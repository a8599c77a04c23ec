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
from typing import TYPE_CHECKING, Any

from opentelemetry import trace

from mesh.adapters.diagnostics import Traces
from mesh.adapters.telemetry import SHUTDOWN_MS, exporter_names, load_exporter, resource_of
from mesh.adapters.tracing.kept_spans import KeptSpans
from mesh.adapters.tracing.span_factory import KEEP
from mesh.adapters.tracing.span_ids import SpanIds, trace_id_of
from mesh.core.errors import ConfigInvalid

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.sampling import Sampler


def configure(
    service: str, kept: KeptSpans | None = None, environ: Mapping[str, str] | None = None
) -> "TracerProvider | None":
    """Return the provider that the variables ask for, None if they ask for none. The caller shuts it down.

    `kept`: buffer for spans outside the sample. Raises ConfigInvalid when an exporter is asked for and not installed,
    or a variable makes no sense.
    """
    environ = os.environ if environ is None else environ
    exporters = [load_exporter("TRACES", name) for name in exporter_names("TRACES", environ)]
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
    from opentelemetry.sdk.trace import TracerProvider

    provider = TracerProvider(
        sampler=sampler, resource=resource_of(service), id_generator=_sdk_ids(), shutdown_on_exit=False
    )
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
