"""The state of an inbox partition: the fold, its checkpoints, timers and topologies."""
