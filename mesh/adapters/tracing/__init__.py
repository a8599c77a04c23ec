"""Traces by OpenTelemetry: names, ids and parents of spans, the spans of each service, and their export."""
