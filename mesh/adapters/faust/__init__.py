"""Faust (faust-streaming): the monitor as a Faust app. Imported only where a command asks for it."""
