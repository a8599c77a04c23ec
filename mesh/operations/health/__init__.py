"""A mesh seen from outside: what it costs, how it stands, what is wrong. Nothing is written."""
