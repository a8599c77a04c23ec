"""Adapters: one folder for each outside system, and the ports that they implement."""
