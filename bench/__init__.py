"""Benchmarks: canonical workloads on the whole mesh. `python -m bench.runs --help`."""
