"""The state of a run and `decide`, which answers an event with the next state and effects."""
