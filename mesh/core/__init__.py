"""Pure decisions: no I/O, no clock, no random numbers, no async. Errors, reason codes, redaction, and a room for each
subject."""
