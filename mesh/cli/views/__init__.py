"""Views: how commands show runs, dead letters, faults and stops."""
