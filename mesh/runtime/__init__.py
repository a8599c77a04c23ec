"""Parts of services: the read loop, stores on the log, followers and relays."""
