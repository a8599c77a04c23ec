"""Judges the health of a mesh from facts that others have read. Pure."""
