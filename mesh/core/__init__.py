"""DECIDES. Pure: no I/O, no clock, no dice, no async. Reads like a specification."""
