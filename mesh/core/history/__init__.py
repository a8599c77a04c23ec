"""A run told from its records: timeline, attempts, outcome, summary."""
