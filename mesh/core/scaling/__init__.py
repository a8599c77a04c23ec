"""Lag of consumer groups, and the number of workers for it."""
