"""Commands about runs: publish events, show runs, and cancel, pause and resume them."""
