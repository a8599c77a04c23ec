"""Other people's frameworks on the same work, in the same run: `python -m bench.peers --help`."""
