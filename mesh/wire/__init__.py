"""CARRIES. One outside system per file; only that file imports its library."""
