"""Invariants checked against the records of a log."""
