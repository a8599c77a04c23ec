"""The basis of every command: options, session, output, signals, standard streams."""
