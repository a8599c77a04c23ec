"""Measures a mesh from its log: numbers of windows of time, made of records alone, and alerts about them. Pure."""
