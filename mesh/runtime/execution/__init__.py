"""Execution of agents' functions: lanes, threads, contexts, isolated processes, imports."""
