"""Commands about dead letters: list, show, export, drop and redrive them."""
