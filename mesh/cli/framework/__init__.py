"""What every command stands on: options, session, screen, signals, streams."""
