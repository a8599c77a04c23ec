"""Consumer groups in the file: members, assignment, heartbeats."""
