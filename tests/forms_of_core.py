"""Marks for tests that hold in one form of the core alone."""

import pytest

from mesh.core.state.form import COMPILED, form

pure_only = pytest.mark.skipif(
    form() == COMPILED, reason="a compiled module has no docstrings, and its functions cannot be replaced"
)
"""For tests that read a function's documentation or put another function in its place."""
