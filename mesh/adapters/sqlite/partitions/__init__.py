"""Topics and partitions in the file: tables, batches, reading, retention."""
