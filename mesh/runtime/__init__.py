"""What services are made of: the read loop, stores on the log, followers and relays."""
