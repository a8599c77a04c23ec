"""Bugs on purpose: each is a patch of the real code, held only while a simulation runs."""

from typing import Any

PLANTED: dict[str, Any] = {}
