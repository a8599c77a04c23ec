"""Records and events as they are on the log: CloudEvents, JSON, partitions, times."""
