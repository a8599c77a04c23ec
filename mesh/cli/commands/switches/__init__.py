"""Commands that switch agents off and on: stop and resume them, break them on purpose and repair them."""
