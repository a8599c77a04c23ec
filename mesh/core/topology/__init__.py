"""topics.yaml: its language, the proved topology, its digest and its stored form."""
