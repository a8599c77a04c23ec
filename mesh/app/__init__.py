"""Where layers meet: settings become a log, a board and running services."""
