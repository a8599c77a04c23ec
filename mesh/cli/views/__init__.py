"""What commands show: runs, dead letters, faults, outcomes."""
