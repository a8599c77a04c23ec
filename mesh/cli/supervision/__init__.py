"""Worker processes of `mesh up`: start, restart, scale, watch."""
