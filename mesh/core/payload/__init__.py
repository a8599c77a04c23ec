"""Payloads of declared types: annotations, validation, exact JSON."""
