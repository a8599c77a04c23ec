"""Composition: settings become a log, a board and running services."""
