"""The SQLite file: connections, the writing thread, wake-up between processes, its clock."""
