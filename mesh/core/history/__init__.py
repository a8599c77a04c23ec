"""The history of a run from its records: timeline, attempts, outcome, summary."""
