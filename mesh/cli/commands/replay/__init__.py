"""`mesh replay`: the modes, one file each."""
