"""RUN. One process = one file = one `mesh` command = one compose service."""
