"""Replay of recorded runs: what each event changed, and what another topology would have decided. Pure."""
