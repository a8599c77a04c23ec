"""Lag of consumer groups, and how many workers it asks for."""
