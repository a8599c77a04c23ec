"""Read recordings and run the modes of a replay over them. Reads only: `ports.ReadLog` is all it knows of a log."""
